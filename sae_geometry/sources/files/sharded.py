"""Read a checkpoint in several files, by the index that maps tensors to files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from sae_geometry.io.escaping import shown
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import MAX_HEADER_BYTES, Place, TensorFile

INDEX_SUFFIX = ".index.json"


def open_index(index: Path, open_one: Callable[[Path], TensorFile]) -> TensorFile:
    """Read the tensors of an index from its shards.

    Args:
        index: a `….index.json` with a `weight_map` from tensors to files, as huggingface_hub writes it.
        open_one: opens a shard.
    """
    owners = _weight_map(index)
    shards: dict[str, TensorFile] = {}
    for name in sorted(set(owners.values())):
        path = index.parent / name
        if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
            raise SourceError(f"{index.name} names {shown(name)}, which is not next to it; fetch that file too")
        shards[name] = open_one(path)
    missing = [k for k, n in owners.items() if k not in shards[n].entries and k not in shards[n].unread]
    if missing:
        shard = shown(owners[missing[0]])
        raise SourceError(f"{index.name} says that {missing[0]!r} is in {shard}, which does not hold it")
    return _chosen(index, owners, shards)


def _weight_map(index: Path) -> dict[str, str]:
    if index.stat().st_size > MAX_HEADER_BYTES:
        raise SourceError(f"{index.name} is larger than any checkpoint's index; refused")
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        owners = {str(k): n for k, n in table.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{index.name} is not an index of shards: it has no table weight_map; give the weights"
        ) from error
    wrong = [n for n in owners.values() if not isinstance(n, str) or "/" in n or "\\" in n or n in ("", ".", "..")]
    if wrong or not owners:
        said = f"names {str(wrong[0])[:60]!r}, which is not a file next to it" if wrong else "lists no tensors"
        raise SourceError(f"{index.name} {said}; refused")
    return owners


def _chosen(index: Path, owners: Mapping[str, str], shards: Mapping[str, TensorFile]) -> TensorFile:
    kinds: Sequence[TensorFile] = list(shards.values())

    def read(key: str, place: Place | None = None, /) -> Tensor:
        return shards[owners[key]].read(key, place)

    return TensorFile(
        index,
        kinds[0].container,
        {k: shards[n].entries[k] for k, n in owners.items() if k in shards[n].entries},
        read,
        metadata=kinds[0].metadata,
        unread={k: shards[n].unread[k] for k, n in owners.items() if k in shards[n].unread},
    )
