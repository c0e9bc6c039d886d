"""Read numeric arrays from .npy and .npz files, and refuse arrays of Python objects."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_geometry.io.formatting import counted
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.bytes import FileBytes
from sae_geometry.sources.files.tensor_file import Entry, TensorFile, as_tensor, checked_shape, read_stored, sliced
from sae_geometry.sources.files.zip import Member, open_zip, read_member, read_start

_MAX_NPY_HEADER = 65536


def open_npy(path: Path) -> TensorFile:
    """Open a .npy file, and call its array "array"."""
    file = FileBytes(path)
    head = file.read(0, min(_MAX_NPY_HEADER, file.size)).tobytes()
    entry, fortran, start = _header(head, path.name, file.size)
    if start + entry.n_bytes > file.size:
        raise SourceError(f"{path.name} is truncated: it has {file.size:,} of {start + entry.n_bytes:,} bytes")
    if (after := file.size - start - entry.n_bytes) > 0:
        raise SourceError(f"{path.name} has {counted(after, 'byte')} after its array; refused: save one array per file")
    whole = sliced(lambda _: _ordered(file.read(start, entry.n_bytes), entry, fortran))
    read = whole if fortran else (lambda _, place=None: read_stored(file, start, entry, place))
    return TensorFile(path, "npy", {"array": entry}, read)


def open_npz(path: Path) -> TensorFile:
    """Open a .npz file, whose arrays keep their names."""
    file = FileBytes(path)
    heads = {
        name.removesuffix(".npy"): (member, *_member_header(file, member))
        for name, member in open_zip(file).items()
        if name.endswith(".npy")
    }

    def read(key: str) -> Tensor:
        member, entry, fortran, start = heads[key]
        return _ordered(read_member(file, member, member.n_bytes)[start:], entry, fortran)

    return TensorFile(path, "npz", {key: head[1] for key, head in heads.items()}, sliced(read))


def _member_header(file: FileBytes, member: Member) -> tuple[Entry, bool, int]:
    label = f"{file.path.name}: {member.name!r}"
    entry, fortran, start = _header(read_start(file, member, _MAX_NPY_HEADER), label, member.n_bytes)
    if start + entry.n_bytes != member.n_bytes:
        raise SourceError(f"{label} has shape {entry.shape}, which does not fit its {member.n_bytes:,} bytes")
    return entry, fortran, start


def _header(raw: bytes, label: str, size: int) -> tuple[Entry, bool, int]:
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Headers from Python 2 cause a warning.
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
    except Exception as error:  # numpy parses a literal, which runs no code but can raise anything.
        raise SourceError(f"{label} has a damaged .npy header") from error
    if dtype.hasobject:
        raise SourceError(f"{label} contains Python objects, which can run code when loaded; refused")
    try:
        if dtype.shape or dtype.kind == "c":
            raise TypeError("not a plain number")
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
    except (TypeError, ValueError) as error:  # PyTorch lacks the type or its byte order.
        raise SourceError(f"{label} has type {str(dtype)[:40]}, not plain little-endian numbers; refused") from error
    return Entry(checked_shape(shape, label, size), kind), bool(fortran), stream.tell()


def _ordered(raw: np.ndarray, entry: Entry, fortran: bool) -> Tensor:
    """Return bytes as a tensor, read in C order or, if `fortran`, with the first axis varying fastest."""
    if not fortran:
        return as_tensor(raw, entry)
    turned = as_tensor(raw, Entry(entry.shape[::-1], entry.dtype))
    return turned.permute(*range(len(entry.shape) - 1, -1, -1))
