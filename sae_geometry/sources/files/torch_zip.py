"""Read files written by `torch.save`, which are zip archives of a pickle and one uncompressed member per storage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sae_geometry.io.escaping import shown
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.bytes import FileBytes
from sae_geometry.sources.files.tensor_file import MAX_HEADER_BYTES, Entry, TensorFile, checked_shape, sliced
from sae_geometry.sources.files.torch_pickle import StoredTensor, flatten, read_pickle
from sae_geometry.sources.files.zip import Member, open_zip, read_checked, read_member
from sae_geometry.sources.plain import is_plain


def open_torch(path: Path, start: int = 0, end: int | None = None) -> TensorFile:
    """Open a torch checkpoint in a file, or in a byte range of it; keys of nested tables are joined by dots."""
    file = FileBytes(path, start, end)
    members = open_zip(file)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        found = f"it has {len(pickles)} data.pkl files, not one" if pickles else "it has no data.pkl"
        raise SourceError(f"{path.name} is a zip archive but not a torch checkpoint: {found}")
    root = pickles[0].removesuffix("data.pkl")
    if members[pickles[0]].deflated:
        raise SourceError(f"{path.name}: its pickle is compressed, which torch.save never does; re-save the file")
    raw = read_member(file, members[pickles[0]], MAX_HEADER_BYTES).tobytes()
    order = members.get(f"{root}byteorder")
    if order is not None and read_member(file, order, 16).tobytes().strip() != b"little":
        raise SourceError(f"{path.name} was saved on a big-endian machine; re-save the file on a little-endian one")
    values = flatten(read_pickle(raw, path.name), path.name)
    stored = {key: v for key, v in values.items() if isinstance(v, StoredTensor)}
    tensors = {key: t for key, t in stored.items() if t.dtype is not None}
    storages = {key: _storage_member(t, key, members, root, file) for key, t in tensors.items()}

    return TensorFile(
        path,
        "torch",
        {key: Entry(t.shape, t.dtype) for key, t in tensors.items() if t.dtype is not None},
        sliced(lambda key: _view(file, tensors[key], storages[key])),
        extras={k: v for k, v in values.items() if is_plain(v)},
        unread={key: shown(t.storage.kind, 40) for key, t in stored.items() if t.dtype is None},
    )


def _storage_member(t: StoredTensor, key: str, members: Mapping[str, Member], root: str, file: FileBytes) -> Member:
    what = f"{file.path.name}: tensor {key[:80]!r}"
    checked_shape(t.shape, what, file.size)
    member = members.get(f"{root}data/{t.storage.key}")
    if member is None:
        raise SourceError(f"{what}: its values are missing from the archive; the file is damaged")
    if member.deflated:
        raise SourceError(
            f"{what} is compressed, which torch.save never does; refused: re-save the file with torch.save"
        )
    assert t.dtype is not None
    if len(t.shape) != len(t.stride) or t.last * t.dtype.itemsize > member.n_bytes:
        raise SourceError(f"{what} claims more values than the archive contains; the file is damaged")
    if math.prod(t.shape) * t.dtype.itemsize > member.n_bytes:
        raise SourceError(f"{what} repeats its values to fill shape {t.shape}; refused: re-save it with .contiguous()")
    return member


def _view(file: FileBytes, t: StoredTensor, member: Member) -> Tensor:
    if math.prod(t.shape) == 0:
        return torch.empty(t.shape, dtype=t.dtype)
    assert t.dtype is not None
    size = t.dtype.itemsize
    raw = read_checked(file, member, t.offset * size, (t.last - t.offset) * size)
    # A file can state any stride for an axis of length 1, since that stride is never used.
    steps = [step if n > 1 else 1 for n, step in zip(t.shape, t.stride, strict=True)]
    return torch.as_strided(torch.from_numpy(raw).view(t.dtype), t.shape, steps)
