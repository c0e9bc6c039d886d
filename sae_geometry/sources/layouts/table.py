"""The table of layouts, with a row for the tensor names and axes of each public format.

Axes are letters: n for latents, d for width, o for outputs (layers or models) to which a decoder writes, s for layers
from which latents read, and 1 for an axis of length one. A decoder is "dn" in `torch.nn.Linear`, "nd" in SAELens, and
"ond" in a crosscoder.

A file is recognized by the names and shapes of its tensors. Rows are tried in order, special formats before general
formats; the first row whose tensors are all present, with consistent sizes, is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

OutKind = Literal["layer", "model"]
BARE = "its rows were taken as latents"
TRANSPOSED = "did you transpose?"  # The note starts like this if rows look like dimensions.


@dataclass(frozen=True)
class Layout:
    """Format of stored dictionaries: the names and axes of their tensors, and how to recognize them.

    Attributes:
        name, title: short name for results, and name shown to users.
        decoder: regular expression that matches the full key of a decoder. A group `site` names one of several
            dictionaries in the file; `source` is the layer from which the latents of a transcoder read, and outputs are
            counted from it; `reads` is the same with outputs counted from the first layer; `into` is an output layer.
        encoder: key of the encoder, with the groups of `decoder` in braces. It is optional unless listed in `also`.
        also, any_of: keys that must all be present, and keys of which at least one must be present.
        config: dotted path that must exist in the configuration next to the weights.
        container: required file format.
        fixed: whether the names alone determine the axes; otherwise the sizes must confirm them.
        square_suffix: if set, the row applies only to square decoders in files whose names end like this.
        out, or_out: meaning of the "o" axis, and its other meaning if the format allows two.
        encoder_bias, decoder_bias, frequency: keys, with groups in braces, tried in order.
        deeper: regular expression for keys that only an encoder of more than one linear map has.
        log_scale: keys of an optional scalar whose exponential multiplies the decoder.
        mixture: keys of W [n, c] and C [c, d], whose product is added to the tensor at `decoder`.
        outputs_mask: key of a tensor [s, o] that marks the outputs of each layer.
        refusal: why a file with this layout cannot be read as dictionaries, completing "FILE is …".
        transcoder: whether the decoder writes to another hook point than the one from which the encoder reads.
        z_scored: whether each input coordinate was divided by its standard deviation.
        note: note to report with every result.
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
    or_out: OutKind | None = None
    encoder_bias: tuple[str, ...] = ("b_enc",)
    decoder_bias: tuple[str, ...] = ("b_dec",)
    frequency: tuple[str, ...] = ()
    deeper: str | None = None
    log_scale: tuple[str, ...] = ()
    mixture: tuple[str, str] | None = None
    outputs_mask: str | None = None
    refusal: str | None = None
    transcoder: bool = False
    z_scored: bool = False
    note: str | None = None


# Encoders of overcomplete have these blocks before the last linear map.
_DEEP_ENCODER = r"encoder\.\w+_blocks\..+"

_linear = partial(
    Layout, decoder=r"decoder\.weight", decoder_axes="dn", encoder="encoder.weight",
    encoder_bias=("encoder.bias", "gate_bias"), decoder_bias=("decoder.bias", "b_dec", "bias", "decoder_bias"),
)  # fmt: skip
_pair = partial(
    Layout, decoder="W_dec", decoder_axes="nd", encoder="W_enc", fixed=False, encoder_bias=("b_enc", "b_gate")
)

# Tables with these names only wrap a model, so the names must not be read as hook points.
WRAPPER = "state_dict|model_state_dict|model|module|saes?|autoencoders?|ae|net|weights|params|dictionary|checkpoint"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "e2e_sae", "e2e_sae run", rf"(?P<site>(?!(?:{WRAPPER})\.)[^.]+)\.decoder\.weight", "dn",
        "{site}.encoder.0.weight", also=("{site}.encoder.0.weight",), encoder_bias=("{site}.encoder.0.bias",),
        decoder_bias=("{site}.decoder.bias",),
    ),
    _linear(
        "e2e_sae", "e2e_sae SAE", encoder="encoder.0.weight", also=("encoder.0.weight",),
        encoder_bias=("encoder.0.bias",),
    ),
    Layout(
        "llamascopium_clt", "llamascopium cross-layer transcoder", r"W_D\.(?P<into>\d{1,4})", "ond", "W_E", "odn",
        encoder_bias=("b_E",), transcoder=True,
    ),
    Layout(
        "llamascopium_crosscoder", "llamascopium crosscoder", "W_D", "ond", "W_E", "odn",
        encoder_bias=("b_E",), decoder_bias=("b_D",),
    ),
    Layout(
        "llamascopium_lorsa", "llamascopium low-rank sparse attention", "W_O", "nd", "W_V", also=("W_V",),
        encoder_bias=("b_V",), decoder_bias=("b_D",), transcoder=True,
    ),
    Layout(
        "llamascopium_molt", "llamascopium mixture of linear transforms", r"U_matrices\.(?!1$)\d+", "nd-",
        refusal="a mixture of linear transforms: each latent of rank above 1 writes to a subspace and has no single "
        "direction to compare; only a mixture whose transforms all have rank 1 can be read",
    ),
    Layout(
        "llamascopium_molt", "llamascopium mixture of linear transforms of rank 1", r"U_matrices\.1", "nd1", "W_E",
        "dn", also=("V_matrices.1",), encoder_bias=("b_E",), decoder_bias=("b_D",), transcoder=True,
    ),
    Layout("llamascopium", "llamascopium SAE", "W_D", "nd", "W_E", "dn", encoder_bias=("b_E",), decoder_bias=("b_D",)),
    Layout(
        "circuit_tracer_clt", "circuit-tracer cross-layer transcoder", r"W_dec_(?P<source>\d{1,4})", "nod",
        "W_enc_{source}", encoder_bias=("b_enc_{source}",), decoder_bias=("b_dec_{source}",), transcoder=True,
    ),
    Layout(
        "crosslayer_transcoder", "crosslayer-transcoder", "W_dec", "sond", "W_enc", "sdn", also=("W_enc",),
        outputs_mask="mask", transcoder=True,
    ),
    Layout(
        "crosslayer_coding", "crosslayer-coding (decode-clt) cross-layer transcoder",
        r"(?:decoder_module\.)?decoders\.(?P<source>\d+)->(?P<into>\d+)\.weight", "dn",
        "encoder_module.encoders.{source}.weight", encoder_bias=("encoder_module.encoders.{source}.bias_param",),
        transcoder=True,
    ),
    Layout(
        "crosslayer_coding", "crosslayer-coding (decode-clt), one decoder per layer",
        r"(?:decoder_module\.)?decoders\.(?P<reads>\d+)\.weight", "dn", "encoder_module.encoders.{reads}.weight",
        encoder_bias=("encoder_module.encoders.{reads}.bias_param",), transcoder=True,
        note="tied decoders: each serves several layers",
    ),
    Layout(
        "gemma_scope_2_crosscoder", "Gemma Scope 2 crosscoder or transcoder, one file per layer",
        r"params_layer_(?P<reads>\d+)\.w_dec", "nod", "params_layer_{reads}.w_enc", "dn",
        encoder_bias=("params_layer_{reads}.b_enc",), decoder_bias=("params_layer_{reads}.b_dec",),
    ),
    Layout("interprot", "InterProt", "w_dec", "nd", "w_enc", "dn", also=("b_pre",), decoder_bias=("b_pre",)),
    Layout("gemma_scope_2_clt", "Gemma Scope 2 cross-layer transcoder", "w_dec", "nod", "w_enc", "dn", transcoder=True),
    Layout("gemma_scope_2", "Gemma Scope 2", "w_dec", "nd", "w_enc", "dn"),
    Layout("crosscoder_models", "crosscoder over models (ckkissane)", "W_dec", "nod", "W_enc", "odn", out="model"),
    Layout(
        "dictionary_learning_crosscoder", "dictionary_learning crosscoder", r"decoder\.weight", "ond",
        "encoder.weight", "odn", or_out="model", encoder_bias=("encoder.bias",), decoder_bias=("decoder.bias",),
    ),
    Layout(
        "sparsify", "sparsify (EleutherAI)", "W_dec", "nd", "encoder.weight", also=("encoder.weight",),
        encoder_bias=("encoder.bias",),
    ),
    Layout(
        "openai", "OpenAI sparse_autoencoder", r"decoder\.weight", "dn", "encoder.weight",
        also=("pre_bias", "latent_bias"), encoder_bias=("latent_bias",), decoder_bias=("pre_bias",),
        frequency=("latents_activation_frequency",),
    ),
    Layout(
        "goodfire", "Goodfire", r"decoder_linear\.weight", "dn", "encoder_linear.weight",
        encoder_bias=("encoder_linear.bias",), decoder_bias=("decoder_linear.bias",),
    ),
    Layout(
        "temporal", "temporal SAE", "D", "nd", "E", "dn",
        encoder_bias=("be", "b_enc"), decoder_bias=("bd", "b_dec", "b"),
    ),
    Layout(
        "archetypal", "overcomplete, relaxed archetypal", r"dictionary\.Relax", "nd", "encoder.final_block.0.weight",
        also=("dictionary.W", "dictionary.C"), mixture=("dictionary.W", "dictionary.C"),
        log_scale=("dictionary.multiplier",), encoder_bias=("encoder.final_block.0.bias",), deeper=_DEEP_ENCODER,
    ),
    Layout(
        "overcomplete", "overcomplete", r"dictionary\._weights", "nd", "encoder.final_block.0.weight",
        log_scale=("dictionary.multiplier",), encoder_bias=("encoder.final_block.0.bias",), deeper=_DEEP_ENCODER,
    ),
    Layout(
        "saelens_synthetic", "SAELens synthetic model", "feature_vectors", "nd", decoder_bias=("bias",),
        frequency=("firing_probabilities",),
        note="a ground truth: its directions generated the data and were not learned",
    ),
    Layout("tied", "tied SAE (Evo 2)", "W", "dn", "W", "dn", any_of=("b_enc", "b_dec"), fixed=False),
    _linear("dictionary_learning", "dictionary_learning", config="trainer.dict_class"),
    _linear("llama_scope", "Llama Scope", also=("encoder.bias", "decoder.bias"), container="safetensors"),
    _linear("dictionary_learning", "dictionary_learning", any_of=("bias", "b_dec", "decoder_bias")),
    _linear("linear", "plain linear autoencoder (DeepSeek-R1 and others)"),
    _pair("gemma_scope", "Gemma Scope", encoder_axes="dn", also=("threshold", "W_enc"), container="npz"),
    _pair("dictionary_learning", "dictionary_learning", encoder_axes="dn", config="trainer.dict_class"),
    _pair("esmc_sae", "ESMC SAE", encoder_axes="dn", also=("idf", "max"), z_scored=True),
    _pair("sae_geometry_consensus", "sae-geometry consensus dictionary", also=("members", "n_runs")),
    _pair("sae_geometry", "sae-geometry demo", also=("frequency",), frequency=("frequency",)),
    _pair("circuit_tracer", "circuit-tracer per-layer transcoder", config="feature_input_hook", transcoder=True),
    _pair("qwen_scope", "Qwen-Scope", decoder_axes="dn", also=("W_enc",), square_suffix=".sae.pt"),
    _pair("saelens", "SAELens", encoder_axes="dn"),
    _pair("qwen_scope", "Qwen-Scope", decoder_axes="dn"),
    _pair("circuit_tracer", "circuit-tracer per-layer transcoder", transcoder=True),
    _pair(
        "circuit_tracer_2024", "circuit-tracer per-layer transcoder, before June 2025", decoder_axes="dn",
        encoder_axes="dn", transcoder=True,
    ),
    Layout(
        "rows", "bare array", r"array|arr_0|tensor|directions|dictionary|decoder", "nd", "encoder", encoder_bias=(),
        decoder_bias=(), note=f"a bare array: {BARE}; latent_axis=1 takes its columns",
    ),
)  # fmt: skip

# The axes are inferred from tensors with one entry per latent, or with one per coordinate of the decoder's space. The
# bias or threshold of an encoder takes precedence, since it must have one entry per latent.
ENCODER_SIDE = (
    "b_enc", "threshold", "b_gate", "b_mag", "r_mag", "latent_bias", "encoder.bias", "encoder.0.bias", "gate_bias",
    "log_threshold", "encoder_linear.bias", "b_E", "b_V", "activation_function.threshold",
)  # fmt: skip
THRESHOLDS = ("threshold", "log_threshold", "activation_function.threshold")
PER_LATENT = (
    *ENCODER_SIDE, "frequency", "n_runs", "scaling_factor", "latents_activation_frequency", "firing_probabilities",
    "idf", "max",
)  # fmt: skip
PER_COORDINATE = ("b_dec", "pre_bias", "decoder.bias", "bias", "decoder_bias", "decoder_linear.bias", "b_D", "b_pre")
N_LATENTS_CONFIG = ("d_sae", "num_latents", "dict_size", "trainer.dict_size", "n_latents", "d_transcoder", "ae_dim")
