"""Read .npy and .npz files: numeric arrays only, never objects."""

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
from sae_geometry.sources.files.tensor_file import Entry, Place, TensorFile, as_tensor, checked_shape, read_stored
from sae_geometry.sources.files.zip import Member, open_zip, read_member, read_start

_MAX_NPY_HEADER = 65536
_DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}


def open_npy(path: Path) -> TensorFile:
    """Read the array of a .npy file, under the key "array"."""
    file = FileBytes(path)
    head = file.read(0, min(_MAX_NPY_HEADER, file.size)).tobytes()
    entry, fortran, start = _header(head, path.name, file.size)
    if start + entry.n_bytes > file.size:
        raise SourceError(f"{path.name} is truncated: its array needs {start + entry.n_bytes:,} bytes")
    if (after := file.size - start - entry.n_bytes) > 0:
        raise SourceError(
            f"{path.name} has {counted(after, 'byte')} after its array, which nothing accounts for; refused: "
            "save one array per file"
        )
    return TensorFile(path, "npy", {"array": entry}, lambda _, place=None: _array(file, start, entry, fortran, place))


def open_npz(path: Path) -> TensorFile:
    """Read the arrays of a .npz file."""
    file = FileBytes(path)
    heads = {
        name.removesuffix(".npy"): (member, *_member_header(file, member))
        for name, member in open_zip(file).items()
        if name.endswith(".npy")
    }

    def read(key: str, place: Place | None = None, /) -> Tensor:
        member, entry, fortran, start = heads[key]
        whole = _ordered(read_member(file, member, member.n_bytes)[start:], entry, fortran)
        return whole if place is None else whole.select(*place).clone()

    return TensorFile(path, "npz", {key: head[1] for key, head in heads.items()}, read)


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
            warnings.simplefilter("ignore")  # numpy warns about headers of Python 2
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
    except Exception as error:  # numpy evaluates the header as a literal, which can fail in many ways but runs no code
        raise SourceError(f"{label} has a damaged .npy header") from error
    if dtype.hasobject:
        raise SourceError(f"{label} holds Python objects, which loading would run; refused")
    if dtype.fields is not None or dtype.byteorder == ">" or dtype.str[1:] not in _DTYPES:
        raise SourceError(f"{label} is of type {str(dtype)[:40]}, not plain little-endian numbers; refused")
    shape = checked_shape(shape, label, size)
    return Entry(shape, _DTYPES[dtype.str[1:]]), bool(fortran), stream.tell()


def _array(file: FileBytes, start: int, entry: Entry, fortran: bool, place: Place | None) -> Tensor:
    if not fortran:
        return read_stored(file, start, entry, place)
    whole = _ordered(file.read(start, entry.n_bytes), entry, fortran)
    return whole if place is None else whole.select(*place).clone()


def _ordered(raw: np.ndarray, entry: Entry, fortran: bool) -> Tensor:
    """Return bytes as a tensor; in Fortran order the first axis varies fastest."""
    if not fortran:
        return as_tensor(raw, entry)
    turned = as_tensor(raw, Entry(entry.shape[::-1], entry.dtype))
    return turned.permute(*range(len(entry.shape) - 1, -1, -1))
