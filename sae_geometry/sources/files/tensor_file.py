"""Tensor files whose names, shapes and types are read at once, and whose values are read on request."""

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

# The headers, pickles and zip directories of published checkpoints are smaller. Parsing one of 60 MB takes a gigabyte
# of memory and tens of seconds.
MAX_HEADER_BYTES = 8 << 20
MAX_AXES = 8
# The total length of tensor names is limited because nested tables can produce long names from few bytes.
MAX_NAMES = 8 << 20
MAX_TENSORS = 50_000

# Tensors without elements need no bytes, so the size of a file does not limit the lengths of their axes.
MAX_EMPTY = 1 << 20

Place = tuple[int, int]  # an axis, and an index on that axis


@dataclass(frozen=True)
class Entry:
    """Shape and type of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """The total size of the elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TensorFile:
    """Contents of a tensor file, with values read on request.

    Attributes:
        entries: shape and type of every tensor, by name.
        read: function that returns a tensor by name, or the slice at an index of one axis, and verifies the checksum if
            the format has checksums.
        metadata: metadata in the file: strings (safetensors), or a table (from a JSON line before the tensors).
        extras: numbers and strings stored with the tensors (torch pickles).
        unread: type names of the tensors that cannot be read because torch lacks their type.
    """

    path: Path
    container: Container
    entries: Mapping[str, Entry]
    read: Callable[..., Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, object] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


def under(file: TensorFile, table: str) -> TensorFile:
    """Return the file with `table` as a prefix of every tensor name: "w_dec" becomes "TABLE.w_dec"."""
    start = len(table) + 1
    return replace(
        file,
        entries={f"{table}.{key}": entry for key, entry in file.entries.items()},
        read=lambda key, place=None: file.read(key[start:], place),
    )


def joined(files: Sequence[TensorFile]) -> TensorFile:
    """Return several files as one; of several tensors with the same name, use the first."""
    owners = {key: file for file in reversed(files) for key in file.entries}
    return replace(
        files[0],
        entries={key: owner.entries[key] for key, owner in owners.items()},
        read=lambda key, place=None: owners[key].read(key, place),
        unread={key: kind for file in files for key, kind in file.unread.items()},
    )


def sliced(read: Callable[[str], Tensor]) -> Callable[..., Tensor]:
    """Return a function for `TensorFile.read` from a function that can only read whole tensors."""

    def read_at(key: str, place: Place | None = None) -> Tensor:
        whole = read(key)
        return whole if place is None else whole.select(*place).clone()

    return read_at


def read_stored(file: FileBytes, start: int, entry: Entry, place: Place | None) -> Tensor:
    """Read the tensor stored in row-major order from byte `start`, or only its slice at `place`."""
    if place is None:
        return as_tensor(file.read(start, entry.n_bytes), entry)
    axis, index = place
    rest = Entry(entry.shape[:axis] + entry.shape[axis + 1 :], entry.dtype)
    inner = math.prod(entry.shape[axis + 1 :]) * entry.dtype.itemsize
    step = inner * entry.shape[axis]
    return as_tensor(file.pieces(start + index * inner, inner, math.prod(entry.shape[:axis]), step), rest)


def as_tensor(raw: np.ndarray, entry: Entry) -> Tensor:
    """Return bytes (uint8) as a tensor of the shape and type in `entry`."""
    if entry.n_bytes == 0:
        return torch.empty(entry.shape, dtype=entry.dtype)
    if raw.ctypes.data % entry.dtype.itemsize:  # Headers of any length leave tensors unaligned.
        raw = raw.copy()
    return torch.from_numpy(raw).view(entry.dtype).reshape(entry.shape)


def checked_shape(shape: object, what: str, size: int) -> tuple[int, ...]:
    """Return `shape` as a tuple; raise SourceError if a file of `size` bytes cannot contain such a tensor."""
    if not isinstance(shape, list | tuple) or len(shape) > MAX_AXES or any(type(n) is not int for n in shape):
        raise SourceError(f"{what} has an impossible shape: expected at most {MAX_AXES} integers")
    if any(not 0 <= n <= max(size, MAX_EMPTY) for n in shape):
        listed = ", ".join(f"{n}" if abs(n) < 1 << 63 else "…" for n in shape)
        raise SourceError(f"{what} has an impossible shape ({listed}) for a file of {size:,} bytes")
    return tuple(shape)
