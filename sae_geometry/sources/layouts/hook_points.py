"""Find the hook points and model of a dictionary in its configuration and path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sae_geometry.sources.layouts.config import lookup, tables
from sae_geometry.sources.layouts.detect import Site
from sae_geometry.sources.layouts.places import canonical_place, layer_named, names_a_place, site_in_layer

# Trainers name the same setting differently. Each pattern must match a whole key.
_POINT = r"(?:hook_?points?(?:_name)?|hook(?:_(?:name|module|site))?|act_(?:name|site)|submodule_name)"
_IN = re.compile(rf"(?:hf_)?(?:(?:in|input|source)_)?{_POINT}(?:_(?:in|input))?|hf_hook_name|(?:tl|mlp)_input_template")
_OUT = re.compile(rf"(?:hf_)?(?:(?:out|output|target)_{_POINT}|{_POINT}_(?:out|output))|(?:tl|mlp)_output_template")
_LAYER = re.compile(r"(?:hook_|hook_point_|hook_name_)?(?:in_|input_)?layers?(?:_(?:in|idx|index|id|num|number))?")
_LAYER_OUT = re.compile(r"(?:(?:out|output)_(?:hook_(?:point_)?)?layer|(?:hook_|hook_point_)?layer_(?:out|output))")
_HEAD = re.compile(r"(?:hook_|hook_point_|attn_)?head(?:_(?:index|idx|id|num|number))?")
_HEAD_OUT = re.compile(r"(?:hook_)?head_index_out|(?:out|output)_hook(?:_point)?_head_index")
_SITE = re.compile(
    r"(?:act_|hook_|activation_)?(?:sites?|location|component|position|stream)|act(?:ivation)?_type|activation"
)
# The value of such a key can be any module, so it is used only if it names a layer.
_MODULE = re.compile(r"(?:(?:target_)?(?:sub)?module|layer)(?:_(?:name|path))?")
_MODEL = re.compile(
    r"(?:\w+_)?model_(?:name|id|name_or_path)|(?:lm|llm)(?:_name)?|(?:base|language|subject|hf|tlens)_model"
)
_MODEL_PLAINLY = ("model", "model.name", "model.name_or_path", "model._name_or_path")  # outermost keys only
_KIND = re.compile("architecture|model_kind|sae_type|type|kind|dict_class")
_IS_TRANSCODER = re.compile("is_transcoder|transcode|transcoder")
_MODULE_SIDE = re.compile("io")  # In dictionary_learning, "io" is "in", "out" or "in_and_out".
_TEMPLATE = re.compile(r"\{[^{}]*\}|%[ds]|<\w+>")
_ZSCORED = re.compile(r".*(?:z[-_ ]?scor|standardi[sz])", re.IGNORECASE)

_LAYER_IN_NAME = {
    "esmc_sae": re.compile(r"(?:layer|l)[_-]?(\d+)(?:\D|$)", re.IGNORECASE),
    "goodfire": re.compile(r"-l(\d+)(?:\D|$)"),
}
_GEMMA_1 = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)\b")
_GEMMA_2 = re.compile(r"gemma-scope-2-(\d+[bm])-(pt|it)\b")
_GEMMA_SITES = {
    "res": "hook_resid_post", "resid_post": "hook_resid_post", "mlp": "hook_mlp_out", "mlp_out": "hook_mlp_out",
    "att": "attn.hook_z", "attn_out": "attn.hook_z",
}  # fmt: skip
_GEMMA_FOLDER = re.compile(r"(?:^|/)(resid_post|mlp_out|attn_out|transcoder|clt)(?:_all)?/layer_(\d+)(?=[_/])")


@dataclass(frozen=True)
class Space:
    """Hook points and model of a dictionary; None if unknown.

    Attributes:
        reads: hook point from which the encoder reads.
        writes: hook point to which the decoder writes, if different (in a transcoder).
        notes: messages for the user on hook points that are incomplete in the configuration.
    """

    reads: str | None
    writes: str | None
    model: str | None
    transcoder: bool = False
    notes: tuple[str, ...] = field(default=())


def space_of(site: Site, config: Mapping[str, Any], where: str, outs: Sequence[int | None] = ()) -> Space:
    """Return the hook points and model of a dictionary.

    Args:
        where: path of the weights file, prefixed with the name of its repository if there is one.
        outs: selected outputs of the decoder; a single output determines the hook point to which the decoder writes.
    """
    layers = [out for out in outs if out is not None and site.layout.out == "layer"]
    by_config, by_path = space_in_config(config, _layer_in(where), site.source, layers), _in_path(site, where)
    reads, writes = site.hook or by_config.reads or by_path.reads, by_config.writes or by_path.writes
    layer = site.source if site.source is not None else _layer_in(where)
    features = {key: value for table in tables(config) for key, value in table.items() if key.startswith("feature_")}
    feature_in, feature_out = features.get("feature_input_hook"), features.get("feature_output_hook")
    if isinstance(feature_in, str) and layer is not None:
        reads = f"blocks.{layer}.{feature_in}"
        target = layer if site.source is None else outs[0] if len(outs) == 1 else None
        if isinstance(feature_out, str) and target is not None:
            writes = f"blocks.{target}.{feature_out}"
    transcoder = by_config.transcoder or by_path.transcoder or site.layout.transcoder or _differ(reads, writes)
    if transcoder and site.layout.name == "sparsify" and reads is not None and writes is None:
        reads, writes = f"{reads}.input", reads  # A sparsify transcoder reads a module's input.
    return Space(reads, writes if transcoder else None, by_config.model or by_path.model, transcoder, by_config.notes)


def space_in_config(
    config: Mapping[str, Any], layer: int | None = None, source: int | None = None, outs: Sequence[int] = ()
) -> Space:
    """Return the hook points and model that a trainer's configuration names.

    Args:
        layer: the layer to use if the configuration names no layer.
        source: layer from which the latents of a cross-layer transcoder read.
        outs: layers to which a decoder with several outputs writes; they index lists of hook points.
    """
    said = _number(config, _LAYER)
    layer = next((number for number in (said, source, layer) if number is not None), None)
    notes: list[str] = []
    reads = _hook(config, _IN, layer, notes, outs if source is None else [source])
    if reads is None:
        reads = next((_spelled(word) for word in _words(config, _MODULE) if layer_named(word) is not None), None)
    if reads is None and layer is not None:
        reads = next((hook for word in _words(config, _SITE) if (hook := site_in_layer(word, layer))), None)
    out_layer = _number(config, _LAYER_OUT)
    if out_layer is None and (source is None or not outs):
        out_layer = layer
    elif out_layer is None and len(outs) == 1:
        out_layer = outs[0]
    writes = _hook(config, _OUT, out_layer, notes if len(outs) < 2 else [], outs)
    side = next((v for v in _values(config, _MODULE_SIDE) if v in ("in", "in_and_out")), None)
    if side is not None and reads is not None and writes is None and names_a_place(f"{reads}.input"):
        reads, writes = f"{reads}.input", reads if side == "in_and_out" else None
    reads, writes = _with_head(reads, _number(config, _HEAD)), _with_head(writes, _number(config, _HEAD_OUT))
    declared = any(str(v).casefold() in ("true", "1") for v in _values(config, _IS_TRANSCODER))
    named = any("transcoder" in str(v).casefold() for v in _values(config, _KIND))
    models = (*_words(config, _MODEL), *(lookup(config, path) for path in _MODEL_PLAINLY))
    model = next((name for name in models if isinstance(name, str) and name), None)
    return Space(reads, writes, model, declared or named or _differ(reads, writes), tuple(notes))


def inputs_are_z_scored(config: Mapping[str, Any]) -> bool:
    """Return whether the configuration says that each input coordinate was divided by its standard deviation."""
    found = ((k, v) for table in tables(config) for k, v in table.items() if isinstance(k, str) and "dec" not in k)
    return any(_ZSCORED.match(v[:20] if isinstance(v, str) else k if v is True else "") for k, v in found)


def _values(config: Mapping[str, Any], key: re.Pattern[str]) -> Iterable[Any]:
    """Yield the values of matching keys, from outer tables first; a list of one element yields this element."""
    for table in tables(config):
        for name, value in table.items():
            if isinstance(name, str) and key.fullmatch(name.casefold()):
                yield value[0] if isinstance(value, list) and len(value) == 1 else value


def _words(config: Mapping[str, Any], key: re.Pattern[str]) -> Iterable[str]:
    return (value for value in _values(config, key) if isinstance(value, str))


def _number(config: Mapping[str, Any], key: re.Pattern[str]) -> int | None:
    for value in _values(config, key):
        if isinstance(value, str) and value.isdecimal() and len(value) < 10:
            value = int(value)
        if type(value) is int and value >= 0:
            return value
    return None


def _hook(
    config: Mapping[str, Any], key: re.Pattern[str], layer: int | None, notes: list[str], at: Sequence[int]
) -> str | None:
    """Return the first hook point under a matching key, with `layer` filled into a template or added to a bare word.

    Of a list of hook points, those at the positions `at` are joined by " + ".
    """
    for value in _values(config, key):
        if isinstance(value, list):
            value = " + ".join(value[i] for i in at if i < len(value) and isinstance(value[i], str))
        if not isinstance(value, str) or not value.strip() or value.casefold() == "none":
            continue
        if _TEMPLATE.search(value):
            if layer is not None:
                return _TEMPLATE.sub(str(layer), value)
            notes.append(f"the configuration names the hook point {value!r} but no layer for its placeholder")
            continue
        if layer_named(value) is not None:
            return _spelled(value)
        if site_in_layer(value, 0) is None:
            return value
        if layer is not None:
            return site_in_layer(value, layer)
        notes.append(f"the configuration names the hook point {value!r} but no layer")
    return None


def _spelled(hook: str) -> str:
    """Convert a name such as "resid_post_layer_8" to the canonical name; return dotted paths unchanged."""
    return hook if "." in hook or "[" in hook else canonical_place(hook)


def _with_head(hook: str | None, head: int | None) -> str | None:
    return hook if hook is None or head is None else f"{hook} (head {head})"


def _differ(reads: str | None, writes: str | None) -> bool:
    return reads is not None and writes is not None and canonical_place(reads) != canonical_place(writes)


def _in_path(site: Site, where: str) -> Space:
    """Return the hook points and model that a path implies by Gemma Scope's naming, a layer number or a hook point."""
    if "gemma-scope" in where or site.layout.name.startswith("gemma_scope"):
        return _gemma_scope(where)
    parts = where.split("/")
    layer = _layer_in(where)
    reads = None
    if site.layout.name == "qwen_scope" and layer is not None:
        reads = f"blocks.{layer}.hook_resid_post"
    elif site.layout.name in _LAYER_IN_NAME and (number := _LAYER_IN_NAME[site.layout.name].search(parts[-1])):
        reads = f"layers.{number[1]}"
    stem = re.sub(r"\.(?:pt|pth|bin|safetensors|np[yz])$", "", parts[-1])
    named = [p for p in (stem, *reversed(parts[:-1])) if names_a_place(p)]
    return Space(reads or (_spelled(named[0]) if named else None), None, None)


def _gemma_scope(where: str) -> Space:
    """Return the hook points and model that the repository and folder names of Gemma Scope 1 and 2 state."""
    one, two, folder = _GEMMA_1.search(where), _GEMMA_2.search(where), _GEMMA_FOLDER.search(where)
    layer, model, site = _layer_in(where), None, None
    if one is not None:
        model = f"google/gemma-2-{one[1]}" + ("-it" if one[2] == "it" else "")
        site = one[3]
        if "/embedding/" in where:
            return Space("hook_embed", None, model)
    elif two is not None:
        model = f"google/gemma-3-{two[1]}-{two[2]}"
    if folder is not None:
        site, layer = folder[1], int(folder[2])
    if site is None or layer is None:
        return Space(None, None, model)
    if site in _GEMMA_SITES:
        return Space(f"blocks.{layer}.{_GEMMA_SITES[site]}", None, model)
    reads = "ln2.hook_normalized" if site == "transcoders" else "mlp.hook_in"
    return Space(f"blocks.{layer}.{reads}", f"blocks.{layer}.hook_mlp_out", model, transcoder=True)


def _layer_in(where: str) -> int | None:
    numbers = re.findall(r"(?:^|/)layer_?(\d+)(?=[/._]|$)", where)
    return int(numbers[-1]) if numbers else None
