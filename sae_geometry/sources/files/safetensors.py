"""Reading .safetensors: an 8-byte length, a JSON header, then the tensors end to end.

The header is checked here rather than by the safetensors package, because a legal header of 60 MB costs that package
a gigabyte and half a minute, and because its numpy mode cannot give bfloat16 or fp8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import (
    MAX_HEADER_BYTES,
    Entry,
    TensorFile,
    checked_shape,
    map_file,
    tensor_at,
)

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def open_safetensors(path: Path) -> TensorFile:
    """The tensors of a .safetensors file.

    Raises:
        SourceError: a header that is too long, is not JSON, or does not describe the bytes that follow exactly.
    """
    size = path.stat().st_size
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if length > min(MAX_HEADER_BYTES, size - 8):
            fate = "it is truncated or not safetensors" if length > size - 8 else "more than any checkpoint needs"
            raise SourceError(f"{path.name}: the header claims {length:,} bytes of a file of {size:,}: {fate}")
        raw = f.read(length)
    header = _header(raw, path.name)
    metadata = header.pop("__metadata__", {}) or {}
    if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
        raise SourceError(f"{path.name}: the header's __metadata__ is not a table of strings")
    start = 8 + length
    spans = {key: _span(key, spec, path.name) for key, spec in header.items()}
    _check_tiling(spans, size - start, path.name)
    pages = map_file(path)
    return TensorFile(
        path,
        "safetensors",
        {key: entry for key, (entry, _, _) in spans.items()},
        lambda key: tensor_at(pages, start + spans[key][1], spans[key][0]),
        metadata=metadata,
    )


def _header(raw: bytes, name: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise SourceError(f"{name}: the header names a tensor twice")
        return table

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except SourceError:
        raise
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name}: the header is not JSON: the file is damaged or not safetensors") from error
    if not isinstance(header, dict):
        raise SourceError(f"{name}: the header is not a table of tensors")
    return header


def _span(key: str, spec: Any, name: str) -> tuple[Entry, int, int]:
    what = f"{name}: tensor {key[:80]!r}"
    if not isinstance(spec, dict) or not {"dtype", "shape", "data_offsets"} <= spec.keys():
        raise SourceError(f"{what} is not described by dtype, shape and data_offsets")
    dtype = _DTYPES.get(str(spec["dtype"]))
    if dtype is None:
        raise SourceError(f"{what} is of type {str(spec['dtype'])[:20]!r}, which this torch does not read")
    entry = Entry(checked_shape(spec["shape"], what), dtype)
    offsets = spec["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(n) is not int or n < 0 for n in offsets):
        raise SourceError(f"{what} has data_offsets that are not a beginning and an end")
    begin, end = offsets
    if end - begin != entry.n_bytes:
        raise SourceError(f"{what} claims {end - begin:,} bytes but its shape and type need {entry.n_bytes:,}")
    return entry, begin, end


def _check_tiling(spans: dict[str, tuple[Entry, int, int]], n_bytes: int, name: str) -> None:
    reached = 0
    for begin, end in sorted((begin, end) for _, begin, end in spans.values()):
        if begin != reached:
            raise SourceError(
                f"{name}: its tensors {'overlap' if begin < reached else 'leave a gap'} at byte {begin:,}"
            )
        reached = end
    if reached > n_bytes:
        raise SourceError(f"{name} is truncated: its tensors need {reached:,} bytes and {n_bytes:,} are there")
    if reached < n_bytes:
        raise SourceError(f"{name} has {n_bytes - reached:,} bytes that belong to no tensor")
