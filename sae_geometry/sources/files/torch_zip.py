"""Reading what `torch.save` writes: a zip of one pickle and one plainly stored member a storage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import MAX_HEADER_BYTES, Entry, TensorFile, checked_shape, map_file
from sae_geometry.sources.files.torch_pickle import StoredTensor, flatten, read_pickle
from sae_geometry.sources.files.zip import Member, check_stored, open_zip, read_member


def open_torch(path: Path) -> TensorFile:
    """The tensors of a torch checkpoint, nested tables flattened with dots.

    Raises:
        SourceError: damaged, hostile, or not what torch.save writes.
    """
    archive, members = open_zip(path)
    with archive:
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise SourceError(f"{path.name} is a zip archive but not a torch checkpoint: it has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        raw = read_member(archive, members[pickles[0]], MAX_HEADER_BYTES)
        order = members.get(f"{root}byteorder")
        if order is not None and read_member(archive, order, 16).strip() != b"little":
            raise SourceError(f"{path.name} was saved on a big-endian machine; re-save it on a little-endian one")
    values = flatten(read_pickle(raw, path.name), path.name)
    tensors = {key: v for key, v in values.items() if isinstance(v, StoredTensor)}
    storages = {key: _storage_member(t, key, members, root, path.name) for key, t in tensors.items()}
    pages = map_file(path)

    def read(key: str) -> Tensor:
        check_stored(memoryview(pages), storages[key], path.name)
        return _view(pages, tensors[key], storages[key])

    return TensorFile(
        path,
        "torch",
        {key: Entry(t.shape, t.dtype) for key, t in tensors.items()},
        read,
        extras={k: v for k, v in values.items() if isinstance(v, str | int | float | bool)},
    )


def _storage_member(t: StoredTensor, key: str, members: Any, root: str, name: str) -> Member:
    what = f"{name}: tensor {key[:80]!r}"
    checked_shape(t.shape, what)
    member: Member | None = members.get(f"{root}data/{t.storage.key}")
    if member is None:
        raise SourceError(f"{what}: its numbers are missing from the archive; the file is damaged")
    if member.start is None:
        raise SourceError(
            f"{what} is compressed, which torch.save never does; refused: re-save the file with torch.save"
        )
    n = math.prod(t.shape)
    last = t.offset + sum((size - 1) * step for size, step in zip(t.shape, t.stride, strict=False)) if n else -1
    if len(t.shape) != len(t.stride) or (last + 1) * t.dtype.itemsize > member.n_bytes:
        raise SourceError(f"{what} claims more numbers than the archive holds; the file is damaged")
    if n * t.dtype.itemsize > member.n_bytes:
        raise SourceError(f"{what} repeats its numbers to a shape of {t.shape}; refused: re-save it with .contiguous()")
    return member


def _view(pages: Any, t: StoredTensor, member: Member) -> Tensor:
    if math.prod(t.shape) == 0:
        return torch.empty(t.shape, dtype=t.dtype)
    assert member.start is not None
    flat = torch.frombuffer(pages, dtype=t.dtype, count=member.n_bytes // t.dtype.itemsize, offset=member.start)
    return torch.as_strided(flat, t.shape, t.stride, t.offset)
