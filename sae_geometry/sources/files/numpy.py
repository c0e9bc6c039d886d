"""Reading .npy and .npz: arrays of numbers only, never objects."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import Entry, TensorFile, checked_shape, map_file
from sae_geometry.sources.files.zip import Member, check_stored, open_zip, read_member

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
    """The one array of a .npy file, under the key "array".

    Raises:
        SourceError: damaged, or an array of objects.
    """
    with path.open("rb") as f:
        entry, fortran, start = _header(f.read(_MAX_NPY_HEADER), path.name)
    if start + entry.n_bytes > path.stat().st_size:
        raise SourceError(f"{path.name} is truncated: its array needs {start + entry.n_bytes:,} bytes")
    pages = map_file(path)
    return TensorFile(path, "npy", {"array": entry}, lambda _: _tensor(memoryview(pages)[start:], entry, fortran))


def open_npz(path: Path) -> TensorFile:
    """The arrays of a .npz file. Members that are not deflated are read in place.

    Raises:
        SourceError: damaged, built to exhaust memory, or holding objects.
    """
    archive, members = open_zip(path)
    heads = {}
    for name, member in members.items():
        if name.endswith(".npy"):
            heads[name.removesuffix(".npy")] = (member, *_member_header(archive, member, path.name))
    pages = map_file(path)

    def read(key: str) -> Tensor:
        member, entry, fortran, start = heads[key]
        if member.start is not None:
            check_stored(memoryview(pages), member, path.name)
            at = member.start + start
            return _tensor(memoryview(pages)[at : at + entry.n_bytes], entry, fortran)
        raw = read_member(archive, member, start + entry.n_bytes)
        return _tensor(memoryview(bytearray(raw))[start:], entry, fortran)

    return TensorFile(path, "npz", {key: head[1] for key, head in heads.items()}, read)


def _member_header(archive: object, member: Member, name: str) -> tuple[Entry, bool, int]:
    label = f"{name}: {member.info.filename!r}"
    try:
        with archive.open(member.info) as f:  # type: ignore[attr-defined]
            entry, fortran, start = _header(f.read(_MAX_NPY_HEADER), label)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{label} is damaged ({error}); fetch the file again") from error
    if start + entry.n_bytes != member.n_bytes:
        raise SourceError(f"{label} has shape {entry.shape}, which does not fit its {member.n_bytes:,} bytes")
    return entry, fortran, start


def _header(raw: bytes, label: str) -> tuple[Entry, bool, int]:
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about headers of Python 2
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
    except Exception as error:  # numpy evaluates the header as a literal: many ways to fail, none to run
        raise SourceError(f"{label} has a damaged .npy header") from error
    if dtype.hasobject:
        raise SourceError(f"{label} holds Python objects, which loading would run; refused")
    if dtype.fields is not None or dtype.byteorder == ">" or dtype.str[1:] not in _DTYPES:
        raise SourceError(f"{label} is of type {str(dtype)[:40]}, not plain little-endian numbers; refused")
    shape = checked_shape(tuple(int(n) for n in shape), label)
    return Entry(shape, _DTYPES[dtype.str[1:]]), bool(fortran), stream.tell()


def _tensor(raw: memoryview, entry: Entry, fortran: bool) -> Tensor:
    count = math.prod(entry.shape)
    if count == 0:
        return torch.empty(entry.shape, dtype=entry.dtype)
    flat = torch.frombuffer(raw, dtype=entry.dtype, count=count)
    if not fortran:
        return flat.reshape(entry.shape)
    return flat.reshape(entry.shape[::-1]).permute(*range(len(entry.shape) - 1, -1, -1))
