"""Canonical names of hook points and models across libraries.

Hook points are named as in TransformerLens: "blocks.5.hook_resid_post". The stream before layer 6 is the stream after
layer 5, and a Hugging Face module ("model.layers.5", "transformer.h.5", "gpt_neox.layers.5.mlp") means its output
unless ".input" follows.
"""

from __future__ import annotations

import re

# A head is written after the hook point, as in "… (head 3)", "….hook_z.3" or "…_head_3".
_HEAD = re.compile(r"(.*?)(?:\s*\(head (\d{1,4})\)|(?<=hook_[qkvz])\.(\d{1,4})|[._]head[._]?(\d{1,4}))?", re.DOTALL)
_IN_A_TUPLE = re.compile(r"\.(input|output)s?(?:\.0)+$")  # NNsight writes model.layers[5].output[0].
_BLOCK = re.compile(r"((?:[a-z_][a-z0-9_]*\.)*?)(blocks?|layers?|h)\.(\d{1,4})(?:\.(.+))?")
_WORDS_FIRST = re.compile(  # For example, dictionary_learning writes "resid_post_layer_8"; "mlp_out_l8" also occurs.
    r"(?:hook_)?(?:([a-z_]+?)[._]layer[._]?(\d{1,4})|((?:resid|attn|mlp)_[a-z]+)[._]l?(\d{1,4}))"
)
_LAYER_FIRST = re.compile(r"layer[._]?(\d{1,4})[._](.+)|l(\d{1,4})[._]((?:hook_)?(?:resid|attn|mlp)_[a-z]+)")
# Only these modules may contain the layers of the language model; "encoder" or "vision_model" contain other layers.
_WRAPPERS = {
    "model", "transformer", "gpt_neox", "language_model", "text_model", "base_model", "backbone", "module", "_orig_mod",
    "decoder", "bert", "roberta", "esm", "llm", "lm",
}  # fmt: skip
_OF_A_MODEL = re.compile(
    r"(?:\w+_)?(?:model|encoder|decoder|tower|transformer|backbone|trunk|vision|visual|text|audio|speech|language|vit)"
)
_EMBEDDED = {"hook_embed", "embed_tokens", "embed_in", "wte"}
_ATTENTION = r"(?:self_attn|attn|attention|self_attention)"
_MLP = r"(?:mlp|feed_forward|ffn)"
_ATTENTION_OUT = rf"{_ATTENTION}\.(?:o_proj|c_proj|dense|out_proj|wo|o)"
_MLP_OUT = rf"{_MLP}\.(?:down_proj|c_proj|dense_4h_to_h|fc2|fc_out|proj_out|out)"
_INPUT = r"\.(?:input|hook_in)"
_OUTPUT = r"(?:\.(?:output|hook_out))?"
# These patterns match the words after the number of a layer, and are tried in order.
_SITES = tuple(
    (re.compile(pattern), site)
    for pattern, site in (
        (r"input|(?:hook_)?resid_pre|hook_in", "hook_resid_pre"),
        (r"output|(?:hook_)?resid_(?:post|out)|hook_out", "hook_resid_post"),
        (rf"(?:input_layernorm|ln_?1|norm1){_INPUT}", "hook_resid_pre"),
        (rf"(?:hook_)?resid_mid|hook_mlp_in|(?:pre_feedforward_layernorm|ln_?2|norm2){_INPUT}", "hook_resid_mid"),
        (rf"(?:hook_)?att(?:entio)?n_out|ln1_post{_OUTPUT}", "hook_attn_out"),
        (rf"(?:hook_)?mlp_out|(?:post_feedforward_layernorm|ln2_post){_OUTPUT}", "hook_mlp_out"),
        (rf"{_ATTENTION_OUT}{_INPUT}|{_ATTENTION}\.(?:hook_)?z", "attn.hook_z"),
        (rf"{_ATTENTION}\.(?:hook_)?([qkv])(?:_proj)?{_OUTPUT}", r"attn.hook_\1"),
        (rf"{_MLP_OUT}{_INPUT}|{_MLP}\.(?:hook_post|post|act)|mlp_post", "mlp.hook_post"),
        (rf"{_MLP}\.(?:hook_pre|pre|c_fc|dense_h_to_4h|fc1|gate_proj)|mlp_pre", "mlp.hook_pre"),
        (rf"{_MLP}{_INPUT}|pre_feedforward_layernorm{_OUTPUT}", "mlp.hook_in"),
        (rf"{_ATTENTION}{_INPUT}|input_layernorm{_OUTPUT}", "attn.hook_in"),
        (rf"ln_?1(?:\.hook_normalized)?{_OUTPUT}", "ln1.hook_normalized"),
        (rf"ln_?2(?:\.hook_normalized)?{_OUTPUT}", "ln2.hook_normalized"),
    )
)  # fmt: skip
# Gemma 2 and 3 normalize the outputs of attention and MLP before adding them to the stream.
_NORMED_AFTER = re.compile(r"gemma[23]\b")
_BARE = (
    (re.compile(rf"(?:{_ATTENTION_OUT}|{_ATTENTION}){_OUTPUT}"), "attn.hook_out", "hook_attn_out"),
    (re.compile(rf"(?:{_MLP_OUT}|{_MLP}){_OUTPUT}"), "mlp.hook_out", "hook_mlp_out"),
)
_AFTER_ATTENTION = re.compile(rf"post_attention_layernorm(?:({_INPUT})|{_OUTPUT})")

_AND = " + "  # It separates the hook points of a crosscoder.

_FAMILY = re.compile(r"\b(llama|gemma|qwen|phi|gpt|olmo)-(?=\d)")
_TOYS = re.compile(r"(gelu|solu|attn-only)-?(\d+l)\d+w.*")
_SEEDS = re.compile(r"([a-e])[a-z]+-gpt2-(small|medium)-x\d+")  # For example, Stanford's "alias-gpt2-small-x21".
_ALIASES = {
    "gpt2-small": "gpt2",
    "distillgpt2": "distilgpt2",
    "mistral-7b": "mistral-7b-v0.1",
    "mistral-7b-it": "mistral-7b-it-v0.1",
    "gpt-j": "gpt-j-6b",
    "gpt-neox": "gpt-neox-20b",
    "neox": "gpt-neox-20b",
    "gpt-neo-small": "gpt-neo-125m",
    "gpt-neo-medium": "gpt-neo-1.3b",
    "gpt-neo-large": "gpt-neo-2.7b",
}  # fmt: skip


def canonical_place(hook: str, model: str | None = None) -> str:
    """Return the canonical name of a hook point; a string that cannot be parsed is returned in lower case.

    Args:
        hook: a TransformerLens hook point, a Hugging Face module path or a sparsify folder name, optionally followed by
            "(head 3)".
        model: name of the model; in Gemma 2 and 3, a sublayer's output is normalized before it is added to the stream,
            so output and addition are different hook points.

    Example:
        >>> {canonical_place(h) for h in ("blocks.6.hook_resid_pre", "transformer.h.5", "model.layers.5.output")}
        {'blocks.5.hook_resid_post'}
    """
    if _AND in hook:
        return _AND.join(canonical_place(one, model) for one in hook.split(_AND))
    found = _HEAD.fullmatch(_plain(hook))
    assert found is not None
    text, number = found[1], found[2] or found[3] or found[4]
    head = f" (head {int(number)})" if number else ""
    parsed = _parsed(text)
    if parsed is None:
        bare = text.rpartition(".")[2]
        return ("hook_embed" if bare in _EMBEDDED else text) + head
    stack, layer, rest = parsed
    site = _site(rest, canonical_model(model) or "")
    if site == "hook_resid_pre" and layer > 0:
        site, layer = "hook_resid_post", layer - 1
    return f"{stack}blocks.{layer}.{site or rest}{head}"


def names_a_place(text: str) -> bool:
    """Return whether a string has the form of a hook point: a known place in a layer, or the embedding.

    "seedA.layers.3" is rejected: if the name of a run could come first, the same hook point would have many names.
    """
    parsed = _parsed(_plain(text))
    if parsed is None:
        return text.casefold() in _EMBEDDED
    stack, _, rest = parsed
    return _site(rest, "") is not None and all(_OF_A_MODEL.fullmatch(word) for word in stack.split(".")[:-1])


def layer_named(hook: str) -> int | None:
    """Return the layer number of a hook point; None if it names no layer."""
    parsed = _parsed(_plain(hook))
    return None if parsed is None else parsed[1]


def site_in_layer(word: str, layer: int) -> str | None:
    """Return the hook point for a word such as "resid_post" in a layer; None for an unknown word."""
    site = None if word.casefold() in ("input", "output") else _site(word.casefold(), "")
    return None if site is None else f"blocks.{layer}.{site}"


def canonical_model(model: str | None) -> str | None:
    """Return the canonical name of a model, in lower case and without organization, for any spelling of the name.

    Example:
        >>> canonical_model("meta-llama/Meta-Llama-3.1-8B") == canonical_model("Llama-3.1-8B")
        True
    """
    if model is None:
        return None
    cached = re.search(r"models--([^/]+)", model)
    key = (cached[1].rpartition("--")[2] if cached else re.split(r"[/\\]", model.rstrip("/\\"))[-1]).casefold().strip()
    key = re.sub(r"(?<=\d)[_.-](?=\d)", ".", key)
    key = re.sub(r"[\s_]+", "-", key).removeprefix("meta-").removesuffix("-hf")
    key = re.sub(r"-instruct\b", "-it", key).replace("tiny-stories", "tinystories")
    key = _FAMILY.sub(r"\1", key)
    if key.startswith(("llama", "gemma")):
        key = key.removesuffix("-base").removesuffix("-pt")
    if toy := _TOYS.fullmatch(key):
        return f"{toy[1]}-{toy[2]}"
    if seed := _SEEDS.fullmatch(key):
        return f"stanford-gpt2-{seed[2]}-{seed[1]}"
    return _ALIASES.get(key, key)


def _parsed(text: str) -> tuple[str, int, str] | None:
    """Return the prefix of the layers ("" in the language model), the layer, and the rest; None if parsing fails."""
    if _AND in text:
        return None
    if (found := _BLOCK.fullmatch(text)) is not None:
        words = [w for w in found[1].split(".") if w and w not in _WRAPPERS]
        if found[2] == "layer" and words == ["encoder"]:  # In BERT, for example, these are the only layers.
            words = []
        return "".join(f"{w}." for w in words), int(found[3]), found[4] or "output"
    if (found := _WORDS_FIRST.fullmatch(text)) is not None:
        word, layer = filter(None, found.groups())
    elif (found := _LAYER_FIRST.fullmatch(text)) is not None:
        layer, word = filter(None, found.groups())
    else:
        return None
    return ("", int(layer), word) if _site(word, "") else None


def _plain(hook: str) -> str:
    """Return a hook point in lower case, with ".5" instead of "[5]" and "output" instead of "output[0]"."""
    return _IN_A_TUPLE.sub(r".\1", re.sub(r"\[(\d+)\]", r".\1", hook.strip()).casefold())


def _site(rest: str, model: str) -> str | None:
    """Return the canonical name of a place in a layer, given the words after the layer's number; None if unknown."""
    for pattern, site in _SITES:
        if (found := pattern.fullmatch(rest)) is not None:
            return found.expand(site)
    after = _NORMED_AFTER.match(model) is not None
    for pattern, bare, added in _BARE:
        if pattern.fullmatch(rest):
            return bare if after else added
    if (found := _AFTER_ATTENTION.fullmatch(rest)) is not None:
        outcomes = ("attn.hook_out", "hook_attn_out") if after else ("hook_resid_mid", "mlp.hook_in")
        return outcomes[0 if found[1] else 1]
    return None
