"""The table of layouts: how each public format names and orients its tensors. Adding a format is adding a row.

Axes are spelled with letters: n latents, d width, o the outputs (layers or models) a decoder writes to. "dn" is what
`torch.nn.Linear` stores for a decoder, "nd" what SAELens stores, "ond" a crosscoder's stack.

A file is recognised by its tensor names and their number of axes, never by its file name: rows are tried in order,
special before general, and the first whose tensors are there and whose sizes agree is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

OutKind = Literal["layer", "model"]


@dataclass(frozen=True)
class Layout:
    """One way of storing a dictionary.

    Attributes:
        name: short name, recorded in results.
        title: for people.
        decoder: regular expression that a decoder's whole key matches. A group `site` names one of several
            dictionaries in the file; `source` the layer a transcoder's latents read from; `into` an output layer.
        decoder_axes: letters, see above.
        encoder: the encoder's key, with the groups of `decoder` in braces. It may be absent unless it is in `also`.
        encoder_axes: letters.
        also: keys that must be there too.
        any_of: at least one of these must be there.
        config: a dotted path that the configuration beside the weights must have.
        container: the file must be packed so.
        fixed: the axes are certain from the names alone; otherwise sizes must bear them out.
        square_suffix: this row is for square decoders in files named so, the one case that sizes cannot tell.
        out: what the "o" axis counts.
        encoder_bias, decoder_bias, frequency: keys, with groups in braces, tried in order.
        transcoder: the decoder writes to another place than the encoder reads from.
        note: what every reader of the result should know.
    """

    name: str
    title: str
    decoder: str
    decoder_axes: str
    encoder: str | None = None
    encoder_axes: str = "nd"
    also: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    config: str | None = None
    container: str | None = None
    fixed: bool = True
    square_suffix: str | None = None
    out: OutKind = "layer"
    encoder_bias: tuple[str, ...] = ()
    decoder_bias: tuple[str, ...] = ()
    frequency: str | None = None
    transcoder: bool = False
    note: str | None = None


_linear = partial(
    Layout, decoder=r"decoder\.weight", decoder_axes="dn", encoder="encoder.weight", encoder_axes="nd",
    encoder_bias=("encoder.bias", "gate_bias"), decoder_bias=("decoder.bias", "b_dec", "bias", "decoder_bias"),
)  # fmt: skip
_pair = partial(
    Layout, decoder="W_dec", encoder="W_enc", fixed=False, encoder_bias=("b_enc", "b_gate"), decoder_bias=("b_dec",)
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "e2e_sae", "e2e_sae run", r"(?P<site>.+)\.decoder\.weight", "dn", "{site}.encoder.0.weight", "nd",
        also=("{site}.encoder.0.weight",), encoder_bias=("{site}.encoder.0.bias",),
        decoder_bias=("{site}.decoder.bias",),
    ),
    Layout(
        "llamascopium_clt", "llamascopium cross-layer transcoder", r"W_D\.(?P<into>\d+)", "ond", "W_E", "odn",
        encoder_bias=("b_E",), transcoder=True,
    ),
    Layout(
        "llamascopium_crosscoder", "llamascopium crosscoder", "W_D", "ond", "W_E", "odn",
        encoder_bias=("b_E",), decoder_bias=("b_D",),
    ),
    Layout("llamascopium", "llamascopium SAE", "W_D", "nd", "W_E", "dn", encoder_bias=("b_E",), decoder_bias=("b_D",)),
    Layout(
        "circuit_tracer_clt", "circuit-tracer cross-layer transcoder", r"W_dec_(?P<source>\d+)", "nod",
        "W_enc_{source}", "nd", encoder_bias=("b_enc_{source}",), decoder_bias=("b_dec_{source}",), transcoder=True,
    ),
    Layout(
        "gemma_scope_2_clt", "Gemma Scope 2 cross-layer transcoder", "w_dec", "nod", "w_enc", "dn",
        encoder_bias=("b_enc",), decoder_bias=("b_dec",), transcoder=True,
    ),
    Layout(
        "gemma_scope_2", "Gemma Scope 2", "w_dec", "nd", "w_enc", "dn",
        encoder_bias=("b_enc",), decoder_bias=("b_dec",),
    ),
    Layout(
        "crosscoder_models", "crosscoder over models (ckkissane)", "W_dec", "nod", "W_enc", "odn", out="model",
        encoder_bias=("b_enc",), decoder_bias=("b_dec",),
    ),
    Layout(
        "dictionary_learning_crosscoder", "dictionary_learning crosscoder", r"decoder\.weight", "ond",
        "encoder.weight", "odn", encoder_bias=("encoder.bias",), decoder_bias=("decoder.bias",),
    ),
    Layout(
        "sparsify", "sparsify (EleutherAI)", "W_dec", "nd", "encoder.weight", "nd", also=("encoder.weight",),
        encoder_bias=("encoder.bias",), decoder_bias=("b_dec",),
    ),
    Layout(
        "openai", "OpenAI sparse_autoencoder", r"decoder\.weight", "dn", "encoder.weight", "nd",
        also=("pre_bias", "latent_bias"), encoder_bias=("latent_bias",), decoder_bias=("pre_bias",),
        frequency="latents_activation_frequency",
    ),
    Layout(
        "goodfire", "Goodfire", r"decoder_linear\.weight", "dn", "encoder_linear.weight", "nd",
        encoder_bias=("encoder_linear.bias",), decoder_bias=("decoder_linear.bias",),
    ),
    Layout(
        "temporal", "temporal SAE", "D", "nd", "E", "dn",
        encoder_bias=("be", "b_enc"), decoder_bias=("bd", "b_dec", "b"),
    ),
    _linear("dictionary_learning", "dictionary_learning", config="trainer.dict_class"),
    _linear("llama_scope", "Llama Scope", also=("encoder.bias", "decoder.bias"), container="safetensors"),
    _linear("dictionary_learning", "dictionary_learning", any_of=("bias", "b_dec", "decoder_bias")),
    _linear("linear", "plain linear autoencoder (DeepSeek-R1 and others)"),
    _pair(
        "gemma_scope", "Gemma Scope", decoder_axes="nd", encoder_axes="dn", also=("threshold", "W_enc"),
        container="npz",
    ),
    _pair(
        "dictionary_learning", "dictionary_learning", decoder_axes="nd", encoder_axes="dn", config="trainer.dict_class"
    ),
    _pair(
        "sae_geometry_consensus", "sae-geometry consensus dictionary", decoder_axes="nd", encoder_axes="nd",
        also=("members", "n_runs"),
    ),
    _pair(
        "sae_geometry", "sae-geometry demo", decoder_axes="nd", encoder_axes="nd", also=("frequency",),
        frequency="frequency",
    ),
    _pair(
        "circuit_tracer", "circuit-tracer per-layer transcoder", decoder_axes="nd", encoder_axes="nd",
        config="feature_input_hook", transcoder=True,
    ),
    _pair(
        "qwen_scope", "Qwen-Scope", decoder_axes="dn", encoder_axes="nd", also=("W_enc",), square_suffix=".sae.pt"
    ),
    _pair("saelens", "SAELens", decoder_axes="nd", encoder_axes="dn"),
    _pair("qwen_scope", "Qwen-Scope", decoder_axes="dn", encoder_axes="nd"),
    _pair(
        "circuit_tracer", "circuit-tracer per-layer transcoder", decoder_axes="nd", encoder_axes="nd", transcoder=True
    ),
    _pair(
        "circuit_tracer_2024", "circuit-tracer per-layer transcoder, before June 2025", decoder_axes="dn",
        encoder_axes="dn", transcoder=True,
    ),
    Layout(
        "rows", "bare array", r"array|arr_0|tensor|directions|dictionary|decoder", "nd", "encoder", "nd",
        note="a bare array: its rows were taken as latents; latent_axis=1 takes its columns",
    ),
)  # fmt: skip

# One-dimensional tensors with one entry a latent, or one entry a coordinate of the space decoded to: they tell which
# axis is which.
PER_LATENT = (
    "b_enc", "threshold", "b_gate", "b_mag", "r_mag", "latent_bias", "encoder.bias", "gate_bias", "frequency", "n_runs",
    "scaling_factor", "log_threshold", "encoder_linear.bias", "b_E", "latents_activation_frequency",
    "activation_function.threshold",
)  # fmt: skip
PER_COORDINATE = ("b_dec", "pre_bias", "decoder.bias", "bias", "decoder_bias", "decoder_linear.bias", "b_D")
N_LATENTS_CONFIG = ("d_sae", "num_latents", "dict_size", "trainer.dict_size", "n_latents", "d_transcoder", "ae_dim")
