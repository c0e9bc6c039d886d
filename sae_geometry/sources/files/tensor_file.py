"""A file of tensors, read lazily: names, shapes and types at once; numbers only for the tensors asked for."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sae_geometry.sources.errors import SourceError

Container = Literal["safetensors", "torch", "npz", "npy"]

# A header, a pickle or a zip directory larger than this describes no checkpoint anyone has published; parsing a
# legal 60 MB one takes tens of seconds and a gigabyte.
MAX_HEADER_BYTES = 8 << 20
MAX_AXES = 8


@dataclass(frozen=True)
class Entry:
    """Shape and type of one stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TensorFile:
    """What a file of tensors holds.

    Attributes:
        path: the file.
        container: how it is packed.
        entries: shape and type of every tensor, by name.
        read: gives one tensor by name, checked against the checksum where the container has one. It may be a view of
            the file's pages, so copy before writing.
        metadata: strings stored beside the tensors (safetensors).
        extras: numbers and strings stored among the tensors (torch pickles).
    """

    path: Path
    container: Container
    entries: Mapping[str, Entry]
    read: Callable[[str], Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, object] = field(default_factory=dict)


def unwrapped(file: TensorFile) -> TensorFile | None:
    """The same file without a first name that all its tensors share ("state_dict.…"); None if they share none."""
    prefixes = {key.partition(".")[0] + "." for key in file.entries}
    if len(prefixes) != 1 or any("." not in key for key in file.entries):
        return None
    prefix = prefixes.pop()
    return replace(
        file,
        entries={key.removeprefix(prefix): entry for key, entry in file.entries.items()},
        read=lambda key: file.read(prefix + key),
    )


def joined(files: Sequence[TensorFile]) -> TensorFile:
    """Several files as one; of tensors with the same name the first is taken."""
    owners = {key: file for file in reversed(files) for key in file.entries}
    return replace(
        files[0],
        entries={key: owner.entries[key] for key, owner in owners.items()},
        read=lambda key: owners[key].read(key),
    )


def map_file(path: Path) -> mmap.mmap:
    """The bytes of a file as private pages, read when touched. The file must not be empty."""
    with path.open("rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)


def tensor_at(pages: mmap.mmap, start: int, entry: Entry) -> Tensor:
    """The tensor stored contiguously from byte `start`."""
    if math.prod(entry.shape) == 0:
        return torch.empty(entry.shape, dtype=entry.dtype)
    flat = torch.frombuffer(pages, dtype=entry.dtype, count=math.prod(entry.shape), offset=start)
    return flat.reshape(entry.shape)


def checked_shape(shape: object, what: str) -> tuple[int, ...]:
    """`shape` as a tuple of sensible lengths.

    Raises:
        SourceError: not a short list of whole numbers, or a product beyond any file.
    """
    if not isinstance(shape, list | tuple) or len(shape) > MAX_AXES:
        raise SourceError(f"{what} has an impossible shape {str(shape)[:60]}")
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape) or math.prod(shape) >= 1 << 48:
        raise SourceError(f"{what} has an impossible shape {str(tuple(shape))[:60]}")
    return tuple(shape)
