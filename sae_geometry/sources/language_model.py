"""Read the unembedding of a language model on disk or on Hugging Face, without the rest of its weights.

From a repository, only `config.json`, `tokenizer.json`, the headers of the safetensors shards and the bytes of two
tensors are fetched, regardless of the size of the model. Both tensors are cached for offline use.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_geometry.io.escaping import shown
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.open import open_tensors
from sae_geometry.sources.files.tensor_file import TensorFile

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_UNEMBED = ("lm_head.weight", "embed_out.weight")
_EMBED = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
_NORM = ("norm.weight", "ln_f.weight", "final_layer_norm.weight", "final_layernorm.weight", "norm_f.weight")
_INSIDE = re.compile(r"(^|\.)(layers?|h|blocks?)\.\d+\.|vision|visual|audio|encoder\.")
_GAIN_PLUS_ONE = {"gemma", "gemma2", "gemma3", "gemma3_text", "recurrent_gemma", "qwen3_next"}
_MOST_CONFIG, _MOST_INDEX = 4 << 20, 16 << 20


@dataclass(frozen=True)
class ModelWeights:
    """Weights of a language model that map directions to logits: the arguments of `Unembedding.from_weights`."""

    name: str
    weight: Tensor
    weight_name: str
    gain: Tensor | None
    gain_name: str
    layer_norm: bool
    biases: tuple[str, ...]
    tokenizer: Path | None


@dataclass(frozen=True)
class ModelFiles:
    """Configuration and tokenizer of a model, and a function that reads the model's tensors by name."""

    address: str
    config: Mapping[str, Any]
    keys: tuple[str, ...]
    read: Callable[[str], Tensor]
    tokenizer: Path | None


def model_weights(files: ModelFiles) -> ModelWeights:
    """Return the unembedding and the final norm of a model, which are identified by name."""
    config = files.config.get("text_config") if isinstance(files.config.get("text_config"), Mapping) else files.config
    assert isinstance(config, Mapping)
    kind = str(config.get("model_type") or files.config.get("model_type") or "")
    outer = [k for k in files.keys if not _INSIDE.search(k)]
    unembed = _only(outer, _UNEMBED, "unembedding", files.address) or _only(outer, _EMBED, "embedding", files.address)
    if unembed is None:
        raise SourceError(
            f"{files.address} has no unembedding: expected a tensor named {', '.join(_UNEMBED)} or, if tied, "
            f"{', '.join(_EMBED[:3])}; pass an array instead"
        )
    if unembed.endswith(_EMBED) and config.get("tie_word_embeddings") is False:
        raise SourceError(
            f"{files.address} has only an embedding, {unembed}, which is not tied to the unembedding according to its "
            "config.json; pass an array instead"
        )
    norm = _only(outer, _NORM, "final norm", files.address)
    gain = None if norm is None else files.read(norm)
    if gain is not None and kind in _GAIN_PLUS_ONE:
        gain = gain.to(torch.float32) + 1
    norm_bias = None if norm is None else norm.removesuffix("weight") + "bias"
    biases = tuple(b for b in (norm_bias, unembed.removesuffix("weight") + "bias") if b in files.keys)
    layer_norm = (
        norm_bias in biases or any(key in config for key in ("layer_norm_epsilon", "layer_norm_eps")) or kind == "olmo"
    )
    tied = " (tied)" if unembed.endswith(_EMBED) else ""
    return ModelWeights(
        shown(files.address),
        files.read(unembed),
        f"{unembed}{tied}",
        gain,
        "" if norm is None else f"{norm}{' plus one' if kind in _GAIN_PLUS_ONE else ''}",
        layer_norm,
        biases,
        files.tokenizer,
    )


def local_model(folder: Path) -> ModelFiles:
    """Open a model's folder with `config.json`, `tokenizer.json`, and one or more safetensors files."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder with a model's config.json and safetensors")
    where: dict[str, TensorFile] = {}
    config, index = (read_small_json(p) if (p := folder / name).is_file() else {} for name in ("config.json", INDEX))
    owners = shard_of_each(index, [p.name for p in os.scandir(folder) if p.is_file()], str(folder))
    for name in sorted({*owners.values()} or {WHOLE}):
        opened = open_tensors(folder / name)
        where |= dict.fromkeys(opened.entries, opened)
    tokenizer = folder / "tokenizer.json"
    return ModelFiles(
        folder.name,
        config,
        tuple(where),
        lambda key: where[key].read(key).clone(),
        tokenizer if tokenizer.is_file() else None,
    )


def shard_of_each(index: Mapping[str, Any], names: list[str] | None, where: str) -> dict[str, str]:
    """Return the file (one of `names`) of each tensor, by key; an empty dict if the only file is `WHOLE`."""
    table = index.get("weight_map")
    if isinstance(table, Mapping):
        owners = {str(key): str(shard) for key, shard in table.items()}
        shards = sorted({*owners.values()})
        missing = [s for s in shards if (names is not None and s not in names) or "/" in s or "\\" in s]
        if missing or not shards:
            listed = ", ".join(shown(m, 60) for m in missing[:3])
            raise SourceError(f"{where}: {INDEX} lists {f'missing shards: {listed}' if listed else 'no shards'}")
        return owners
    if names is None or WHOLE in names:
        return {}
    raise SourceError(f"{where} has no {WHOLE} and no {INDEX}: expected a model in safetensors format")


def _only(keys: list[str], suffixes: tuple[str, ...], what: str, where: str) -> str | None:
    found = [k for k in keys if any(k == s or k.endswith(f".{s}") for s in suffixes)]
    if len(found) > 1:
        listed = ", ".join(shown(k, 60) for k in found[:5])
        raise SourceError(f"{where} has several tensors that could be the {what}: {listed}; pass an array instead")
    return found[0] if found else None


def read_small_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in the configuration or index of a model."""
    try:
        if path.stat().st_size > (_MOST_CONFIG if path.name == "config.json" else _MOST_INDEX):
            raise ValueError("too large")
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read as JSON") from error
    if not isinstance(table, dict):
        raise SourceError(f"{path} does not contain a JSON object")
    return table
