"""The unembedding of a model on disk, ready to be compared with a dictionary."""

from __future__ import annotations

from pathlib import Path

from sae_geometry.labels.unembedding import Unembedding
from sae_geometry.labels.vocabulary import read_vocabulary
from sae_geometry.sources.language_model import local_model, model_weights


def read_unembedding(folder: str | Path) -> Unembedding:
    """Read unembedding, final norm and tokens from a model's folder: `config.json`, `tokenizer.json`, safetensors.

    Of the weights only those of two tensors are read.

    Raises:
        SourceError: not such a folder, or no tensor that is clearly the unembedding.
        ValueError: a damaged tokenizer, or shapes that do not fit.
    """
    path = Path(folder).expanduser()
    if not path.exists():
        raise ValueError(
            f"{folder} does not exist: the unembedding comes from a model's folder with config.json, tokenizer.json "
            "and safetensors; `hf download ORG/MODEL --local-dir DIR` makes one"
        )
    parts = model_weights(local_model(path))
    return Unembedding.from_weights(
        parts.unembedding,
        None if parts.tokenizer is None else read_vocabulary(parts.tokenizer),
        gain=parts.gain,
        layer_norm=parts.layer_norm,
        name=path.resolve().name,
        weight_name=parts.unembedding_name,
        gain_name=parts.gain_name or "no gain",
    )
