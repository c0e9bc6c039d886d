"""Read torch.distributed.checkpoint folders: shards, and a `.metadata` file that locates every tensor.

PyTorch can read these folders without a process group, but it unpickles `.metadata`, which can execute code. This
module reads the pickle as data. Each piece of a tensor is a torch.save archive within a shard.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from sae_geometry.io.escaping import shown
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import MAX_HEADER_BYTES, Entry, TensorFile, checked_shape, sliced
from sae_geometry.sources.files.torch_pickle import Record, read_records
from sae_geometry.sources.files.torch_zip import open_torch

DCP_METADATA = ".metadata"
DCP_SHARD = ".distcp"


@dataclass(frozen=True)
class _Piece:
    """A block of a tensor: its offsets in the tensor, and its byte range in a shard."""

    offsets: tuple[int, ...]
    shard: Path
    start: int
    end: int


def open_dcp(metadata: Path) -> TensorFile:
    """Open the tensors of a torch.distributed.checkpoint folder, given the path of its `.metadata` file."""
    place = metadata.parent.name
    if (n_bytes := metadata.stat().st_size) > MAX_HEADER_BYTES:
        raise SourceError(f"{place}: its .metadata has {n_bytes:,} bytes, above the limit of {MAX_HEADER_BYTES:,}")
    size = sum(path.stat().st_size for path in metadata.parent.iterdir() if path.is_file())
    table = read_records(metadata.read_bytes(), f"{place}/{DCP_METADATA}")
    try:
        stated = {k: v for k, v in _fields(table, "state_dict_metadata").items() if isinstance(v, Record)}
        entries = {key: entry for key, v in stated.items() if (entry := _entry(v, f"{place}: {key[:80]!r}", size))}
        pieces: dict[str, list[_Piece]] = {key: [] for key in entries}
        for key, piece in _pieces(_fields(table, "storage_data"), metadata.parent):
            if key in pieces:
                pieces[key].append(piece)
        # Path.is_file would raise for a name that is too long.
        there = [p for found in pieces.values() for p in found if os.path.isfile(p.shard)]
        if sum(abs(p.end - p.start) for p in there) > size:
            raise SourceError(f"{place}: its .metadata refers to more bytes than its shards hold; refused")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{place}: its .metadata is damaged or not from torch.distributed.checkpoint") from error

    read = sliced(lambda key: _assembled(key, entries[key], pieces[key], place))
    return TensorFile(metadata.parent, "dcp", entries, read)


def _fields(table: object, name: str) -> dict[Any, Any]:
    found = table.field(name) if isinstance(table, Record) else None
    if not isinstance(found, dict):
        raise TypeError(f"{name} is not a table")
    return found


def _entry(stated: Record, what: str, size: int) -> Entry | None:
    if not stated.kind.endswith("TensorStorageMetadata"):
        return None
    properties = stated.field("properties").state
    named = properties["dtype"] if isinstance(properties, dict) else properties[0]
    dtype = getattr(torch, str(named).rpartition(".")[2], None)
    return Entry(checked_shape(stated.field("size"), what, size), dtype) if isinstance(dtype, torch.dtype) else None


def _pieces(stored: dict[Any, Any], folder: Path) -> Iterator[tuple[str, _Piece]]:
    for index, info in stored.items():
        if info.state.get("transform_descriptors"):
            raise SourceError(
                f"{folder.name} is a torch.distributed.checkpoint with transformed (compressed) shards; convert "
                f"it where it was written: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
                f"{folder.name} OUT.pt"
            )
        path, start, length = PurePosixPath(info.field("relative_path")), info.field("offset"), info.field("length")
        if path.is_absolute() or ".." in path.parts or type(start) is not int or type(length) is not int:
            raise SourceError(f"{folder.name}: its .metadata refers to files outside the folder; refused")
        offsets = index.state.get("offset") or ()
        yield str(index.field("fqn")), _Piece(tuple(offsets), folder / path, start, start + length)


def _assembled(key: str, entry: Entry, pieces: list[_Piece], place: str) -> Tensor:
    """Assemble a tensor from pieces that cover it without gaps or overlaps; raise SourceError otherwise."""
    what = f"{place}: tensor {key[:80]!r}"
    read = []
    for piece in pieces:
        if not os.path.isfile(piece.shard):
            raise SourceError(f"{what} needs {shown(piece.shard.name)}, which is missing; fetch the whole folder")
        file = open_torch(piece.shard, piece.start, piece.end)
        if list(file.entries) != ["tensor"] or file.entries["tensor"].dtype != entry.dtype:
            raise SourceError(f"{what}: {shown(piece.shard.name)} contradicts .metadata; the checkpoint is damaged")
        read.append((piece.offsets or (0,) * len(entry.shape), file.read("tensor")))
    if len(read) == 1 and tuple(read[0][1].shape) == entry.shape:
        return read[0][1]
    inside = all(
        len(at) == len(entry.shape) == part.ndim
        and all(type(o) is int and 0 <= o <= size - n for o, n, size in zip(at, part.shape, entry.shape, strict=True))
        for at, part in read
    )
    if inside and sum(part.numel() for _, part in read) == math.prod(entry.shape):
        whole, filled = torch.empty(entry.shape, dtype=entry.dtype), torch.zeros(entry.shape, dtype=torch.bool)
        for at, part in read:
            where = tuple(slice(o, o + n) for o, n in zip(at, part.shape, strict=True))
            whole[where], filled[where] = part, True
        if filled.all():  # The numbers of elements match, so no pieces overlap.
            return whole
    raise SourceError(f"{what}: its pieces do not fill its shape {entry.shape}; the checkpoint is damaged")
