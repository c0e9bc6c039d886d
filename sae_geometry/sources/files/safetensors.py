"""Read .safetensors files: an 8-byte length, a JSON header, then contiguous tensors.

The safetensors package is not used, because it takes half a minute and a gigabyte to parse a valid header of 60 MB. It
also maps the file into memory, so the process would crash if the file were truncated meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sae_geometry.io.escaping import shown
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.bytes import FileBytes
from sae_geometry.sources.files.tensor_file import (
    MAX_HEADER_BYTES,
    MAX_TENSORS,
    Entry,
    TensorFile,
    checked_shape,
    read_stored,
)
from sae_geometry.sources.plain import parse_json

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def open_safetensors(path: Path) -> TensorFile:
    """Open a .safetensors file by reading its header; tensors are read on request."""
    file = FileBytes(path)
    header = read_header(lambda start, n: file.read(start, n).tobytes(), file.size, path.name)
    return TensorFile(
        path,
        "safetensors",
        header.entries,
        lambda key, place=None: read_stored(file, header.start[key], header.entries[key], place),
        metadata=header.metadata,
        unread=header.unread,
    )


class Header(NamedTuple):
    """Header of a .safetensors file: tensors, first bytes, metadata, and in `unread` the types that PyTorch lacks."""

    entries: Mapping[str, Entry]
    start: Mapping[str, int]
    unread: Mapping[str, str]
    metadata: Mapping[str, str]


def read_header(read: Callable[[int, int], bytes | bytearray], size: int, name: str) -> Header:
    """Read the header of a file of `size` bytes by calling `read(first_byte, n_bytes)`."""
    length = int.from_bytes(read(0, 8), "little")
    if length > min(MAX_HEADER_BYTES, size - 8):
        fate = "it is truncated or not safetensors" if length > size - 8 else "more than any checkpoint needs"
        raise SourceError(f"{name}: the header claims {length:,} bytes of a file of {size:,}: {fate}")
    table = _header(read(8, length), name)
    metadata = table.pop("__metadata__", {}) or {}
    if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
        raise SourceError(f"{name}: the header's __metadata__ is not a table of strings")
    spans = {key: _span(key, spec, name, size) for key, spec in table.items()}
    _check_tiling(spans, size - 8 - length, name)
    return Header(
        {key: entry for key, (entry, _, _) in spans.items() if entry is not None},
        {key: 8 + length + begin for key, (_, begin, _) in spans.items()},
        {key: shown(table[key]["dtype"], 20) for key, (entry, _, _) in spans.items() if entry is None},
        metadata,
    )


def _header(raw: bytes | bytearray, name: str) -> dict[str, Any]:
    n_tables = 0

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal n_tables
        n_tables += 1
        if n_tables > MAX_TENSORS:
            raise SourceError(f"{name}: the header describes more than {MAX_TENSORS:,} tensors; refused")
        table = dict(pairs)
        if len(table) != len(pairs):
            raise SourceError(f"{name}: the header names a tensor twice")
        return table

    try:
        header = parse_json(raw.decode("utf-8"), unique)
    except SourceError:
        raise
    except ValueError as error:
        raise SourceError(f"{name}: the header is not JSON: the file is damaged or not safetensors") from error
    if not isinstance(header, dict):
        raise SourceError(f"{name}: the header is not a table of tensors")
    return header


def _span(key: str, spec: Any, name: str, size: int) -> tuple[Entry | None, int, int]:
    """Return a tensor's entry (None if PyTorch lacks the type), its first byte, and one past its last byte."""
    what = f"{name}: tensor {key[:80]!r}"
    if not isinstance(spec, dict) or not {"dtype", "shape", "data_offsets"} <= spec.keys():
        raise SourceError(f"{what} lacks dtype, shape or data_offsets in the header")
    shape, dtype = checked_shape(spec["shape"], what, size), _DTYPES.get(str(spec["dtype"]))
    entry = None if dtype is None else Entry(shape, dtype)
    offsets = spec["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(n) is not int or n < 0 for n in offsets):
        raise SourceError(f"{what} has data_offsets that are not two byte positions")
    begin, end = offsets
    if entry is not None and end - begin != entry.n_bytes:
        raise SourceError(f"{what} claims {end - begin:,} bytes but its shape and type need {entry.n_bytes:,}")
    if begin > end:
        raise SourceError(f"{what} has data_offsets that end before they begin")
    return entry, begin, end


def _check_tiling(spans: dict[str, tuple[Entry | None, int, int]], n_bytes: int, name: str) -> None:
    reached = 0
    for begin, end in sorted((begin, end) for _, begin, end in spans.values()):
        if begin != reached:
            raise SourceError(
                f"{name}: its tensors {'overlap' if begin < reached else 'leave a gap'} at byte {begin:,}"
            )
        reached = end
    if reached > n_bytes:
        raise SourceError(f"{name} is truncated: its tensors need {reached:,} bytes but only {n_bytes:,} are present")
    if reached < n_bytes:
        raise SourceError(f"{name} has {n_bytes - reached:,} bytes that do not belong to any tensor")
