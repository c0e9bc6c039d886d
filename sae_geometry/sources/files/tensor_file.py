"""Lazily read tensor files: names, shapes and types at once, values only for requested tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.bytes import FileBytes

Container = Literal["safetensors", "torch", "npz", "npy", "dcp", "memory"]

# No published checkpoint has a larger header, pickle or zip directory. Parsing a valid one of 60 MB takes tens of
# seconds and a gigabyte.
MAX_HEADER_BYTES = 8 << 20
MAX_AXES = 8
# This limits the total length of tensor names, since nested tables can produce long names from few bytes.
MAX_NAMES = 8 << 20
MAX_TENSORS = 50_000

# This limits the axes of a tensor without elements, which needs no bytes at any shape.
MAX_EMPTY = 1 << 20

Place = tuple[int, int]  # an axis and an index on it


@dataclass(frozen=True)
class Entry:
    """Shape and type of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Return the number of bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TensorFile:
    """Contents of a tensor file.

    Attributes:
        entries: shape and type of every tensor, by name.
        read: returns one tensor by name, or its slice at one index of an axis, verified against the checksum where the
            format has one.
        metadata: metadata in the file: strings (safetensors), or a table (a JSON line before the tensors).
        extras: numbers and strings stored with the tensors (torch pickles).
        unread: type names of tensors whose type torch does not have; an error only when requested.
    """

    path: Path
    container: Container
    entries: Mapping[str, Entry]
    read: Callable[..., Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, object] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


def under(file: TensorFile, table: str) -> TensorFile:
    """Return the same file with all names inside a table: "w_dec" becomes "TABLE.w_dec"."""
    start = len(table) + 1
    return replace(
        file,
        entries={f"{table}.{key}": entry for key, entry in file.entries.items()},
        read=lambda key, place=None: file.read(key[start:], place),
    )


def joined(files: Sequence[TensorFile]) -> TensorFile:
    """Return several files as one; of tensors with the same name the first is used."""
    owners = {key: file for file in reversed(files) for key in file.entries}
    return replace(
        files[0],
        entries={key: owner.entries[key] for key, owner in owners.items()},
        read=lambda key, place=None: owners[key].read(key, place),
        unread={key: kind for file in files for key, kind in file.unread.items()},
    )


def sliced(read: Callable[[str], Tensor]) -> Callable[..., Tensor]:
    """Return the `read` of a file whose format has its tensors read whole."""

    def read_at(key: str, place: Place | None = None) -> Tensor:
        whole = read(key)
        return whole if place is None else whole.select(*place).clone()

    return read_at


def read_stored(file: FileBytes, start: int, entry: Entry, place: Place | None) -> Tensor:
    """Return the tensor stored in row-major order from byte `start`, or its slice at one index."""
    if place is None:
        return as_tensor(file.read(start, entry.n_bytes), entry)
    axis, index = place
    rest = Entry(entry.shape[:axis] + entry.shape[axis + 1 :], entry.dtype)
    inner = math.prod(entry.shape[axis + 1 :]) * entry.dtype.itemsize
    step = inner * entry.shape[axis]
    return as_tensor(file.pieces(start + index * inner, inner, math.prod(entry.shape[:axis]), step), rest)


def as_tensor(raw: np.ndarray, entry: Entry) -> Tensor:
    """Return bytes (uint8, the size of the entry) as its tensor."""
    if entry.n_bytes == 0:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if raw.ctypes.data % entry.dtype.itemsize:  # the header of a hostile file can have any length
        raw = raw.copy()
    return torch.from_numpy(raw).view(entry.dtype).reshape(entry.shape)


def checked_shape(shape: object, what: str, size: int) -> tuple[int, ...]:
    """Return `shape` as a tuple of lengths that a file of `size` bytes can hold."""
    if not isinstance(shape, list | tuple) or len(shape) > MAX_AXES or any(type(n) is not int for n in shape):
        raise SourceError(f"{what} has an impossible shape: a few whole numbers expected")
    if any(not 0 <= n <= max(size, MAX_EMPTY) for n in shape):
        listed = ", ".join(f"{n}" if abs(n) < 1 << 63 else "…" for n in shape)
        raise SourceError(f"{what} has an impossible shape ({listed}) for a file of {size:,} bytes")
    return tuple(shape)
