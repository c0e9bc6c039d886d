"""Unembeddings, which map a direction of the residual stream to the logits of all tokens (the logit lens).

A unit direction x adds ⟨x, u_v⟩ to the logit of token v, up to the scale of the final norm, where
u_v = gain ∘ W_U[v] − mean over the vocabulary. A LayerNorm removes the mean of its input, so the mean of u_v over the
width is removed as well. Biases add the same constant per token for every direction, so they are left out.

nostalgebraist, Interpreting GPT: the logit lens (2020).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.labels.vocabulary import printable, read_vocabulary
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.huggingface.ranges import remote_model_weights
from sae_geometry.sources.language_model import ModelWeights, local_model, model_weights
from sae_geometry.sources.resolve import parse_address


@dataclass(frozen=True, eq=False)
class Unembedding:
    """Directions in the residual stream, one per token, that raise the logit of their token.

    Attributes:
        rows: float32 [n_tokens, d], u_v of each token.
        tokens: text of each token.
        name: source of the weights.
        how: one sentence on the weight, gain and centering in `rows`, and on the omitted biases.
    """

    rows: Float[Tensor, "n_tokens d"]
    tokens: tuple[str, ...]
    name: str
    how: str

    @cached_property
    def metric(self) -> np.ndarray:
        """The matrix M = Σ_v u_v u_vᵀ, float64 [d, d]; xᵀ M y is the inner product of the logit effects of x and y."""
        u = self.rows.double()
        return (u.T @ u).numpy()

    @staticmethod
    def from_weights(
        weight: Tensor,
        tokens: Sequence[str] | None = None,
        *,
        gain: Tensor | None = None,
        layer_norm: bool = False,
        name: str = "arrays",
        weight_name: str = "the unembedding",
        gain_name: str = "the final norm's gain",
        biases: Sequence[str] = (),
    ) -> Unembedding:
        """Build an unembedding from a model's weights.

        Args:
            weight: [n_rows, d], W_U, one row per token id, any real floating type.
            tokens: text of each id, by default the id. Rows whose text is "" or missing are padding and are left out.
            gain: [d], the final norm's gain; ones if None.
            layer_norm: whether the final norm removes the mean of its input.
            weight_name, gain_name: names of the two tensors in `how`.
            biases: names of the biases of the output and the final norm, which are left out.

        Raises:
            ValueError: the shapes do not match, no row has a token, or a value is not finite.
        """
        if weight.ndim != 2 or 0 in weight.shape:
            raise ValueError(f"an unembedding must have shape [n_tokens, width]; got shape {tuple(weight.shape)}")
        n, d = weight.shape
        if gain is not None and tuple(gain.shape) != (d,):
            raise ValueError(f"the gain must have shape ({d},); got shape {tuple(gain.shape)}")
        texts = [str(i) for i in range(n)] if tokens is None else list(tokens[:n])
        named = [i for i, text in enumerate(texts) if text]
        if not named:
            raise ValueError(f"none of the {n:,} rows of {weight_name} has a token")
        rows = weight.detach().cpu()[torch.tensor(named)].to(torch.float32)
        if gain is not None:
            rows = rows * gain.detach().cpu().to(torch.float32)
        if layer_norm:
            rows = rows - rows.mean(dim=1, keepdim=True, dtype=torch.float64).to(torch.float32)
        rows = rows - rows.mean(dim=0, dtype=torch.float64).to(torch.float32)
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{weight_name} or {gain_name} of {name} has entries that are not finite")
        how = f"{weight_name}" + ("" if gain is None else f" times {gain_name}") + ", centered over the vocabulary"
        how += " and over the width (LayerNorm)" if layer_norm else ""
        how += "; no gain" if gain is None else ""
        how += f"; left out as constants per token: {', '.join(biases)}" if biases else "; no bias"
        left = n - len(named)
        how += f"; {left:,} of {n:,} rows have no token and are left out" if left else ""
        words = tuple(printable(texts[i].encode("utf-8", "replace")) if tokens is None else texts[i] for i in named)
        return Unembedding(rows, words, name, how)


def read_unembedding(address: str | Path, context: Context | None = None) -> Unembedding:
    """Read the unembedding, final norm and tokens of a model from `config.json`, `tokenizer.json` and safetensors.

    Only two tensors are read or downloaded.

    Args:
        address: the model's folder, or hf://org/repo[@revision].
        context: offline mode and callbacks.

    Raises:
        SourceError: the model does not exist, or no tensor can be identified as the unembedding.
        ValueError: the tokenizer is damaged, or the shapes do not match.

    Example:
        >>> import pathlib, tempfile, torch, sae_geometry as sg
        >>> from safetensors.torch import save_file
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> weights = {"lm_head.weight": torch.eye(3), "model.norm.weight": torch.ones(3)}
        >>> save_file(weights, folder / "model.safetensors")
        >>> sg.read_unembedding(folder).how
        'lm_head.weight times model.norm.weight, centered over the vocabulary; no bias'
    """
    found = _weights(address, context or Context())
    return Unembedding.from_weights(
        found.weight,
        None if found.tokenizer is None else read_vocabulary(found.tokenizer),
        gain=found.gain,
        layer_norm=found.layer_norm,
        name=found.name,
        weight_name=found.weight_name,
        gain_name=found.gain_name,
        biases=found.biases,
    )


def _weights(address: str | Path, context: Context) -> ModelWeights:
    parsed = parse_address(address)
    if parsed.scheme == "local":
        path = Path(os.path.expanduser(parsed.place))
        if not path.exists():
            raise SourceError(
                f"{address} does not exist: give a model's folder with config.json, tokenizer.json and safetensors, or "
                "hf://org/model"
            )
        return model_weights(local_model(path.resolve()))
    if parsed.scheme != "hf" or parsed.path:
        raise SourceError(f"{address} is not a language model: give a model's folder, or hf://org/model")
    return remote_model_weights(parsed, context)
