"""The unembedding of a model on disk, ready to be compared with a dictionary."""

from __future__ import annotations

import os
from pathlib import Path

from sae_geometry.io.escaping import shown
from sae_geometry.labels.unembedding import Unembedding
from sae_geometry.labels.vocabulary import read_vocabulary
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.huggingface.ranges import remote_model_weights
from sae_geometry.sources.language_model import ModelWeights, local_model, model_weights
from sae_geometry.sources.resolve import parse_address


def read_unembedding(address: str | Path, context: Context | None = None) -> Unembedding:
    """Read unembedding, final norm and tokens of a model: `config.json`, `tokenizer.json`, safetensors.

    Of the weights only those of two tensors are read, from Hugging Face too.

    Args:
        address: the model's folder, or hf://org/repo[@revision].
        context: offline mode and callbacks.

    Raises:
        SourceError: no such model, or no tensor that is clearly the unembedding.
        ValueError: a damaged tokenizer, or shapes that do not fit.

    Example:
        >>> import pathlib, tempfile, torch, sae_geometry as sg
        >>> from safetensors.torch import save_file
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> weights = {"lm_head.weight": torch.eye(3), "model.norm.weight": torch.ones(3)}
        >>> save_file(weights, folder / "model.safetensors")
        >>> sg.read_unembedding(folder).how
        'lm_head.weight times model.norm.weight, centered over the vocabulary; no bias'
    """
    parts = _weights(address, context or Context())
    return Unembedding.from_weights(
        parts.unembedding,
        None if parts.tokenizer is None else read_vocabulary(parts.tokenizer),
        gain=parts.gain,
        layer_norm=parts.layer_norm,
        name=shown(parts.address),
        weight_name=parts.unembedding_name,
        gain_name=parts.gain_name,
        biases=parts.biases,
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
