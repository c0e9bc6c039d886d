"""Region outlines from a YAML file: boxes and polygons in the coordinates of a layout."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sae_geometry.io.escaping import shown
from sae_geometry.sources.plain import parse_yaml

_HOW = "write LETTER: {box: [x0, x1, y0, y1]} or LETTER: {polygon: [[x, y], [x, y], [x, y], …]}"
_LONGEST = 24
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Shape:
    """Outline of a region: a letter (or name) and the corners of a polygon, [corners, 2]."""

    letter: str
    polygon: tuple[tuple[float, float], ...]


def read_shapes(path: str | os.PathLike[str]) -> tuple[Shape, ...]:
    """Return the shapes in a YAML file, in the order of the file.

    The file maps letters to shapes, at the top level or under `regions`:

        regions:
          A: {box: [1.0, 3.5, -2.0, 0.5]}           # x from 1 to 3.5, y from −2 to 0.5
          B: {polygon: [[0, 0], [4, 0], [2, 3]]}    # corners in order

    Raises:
        ValueError: not YAML, or an entry that is not a shape; the message names the entry.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "regions.yaml"
        >>> _ = file.write_text("A: {box: [0, 2, 1, 3]}")
        >>> read_shapes(file)[0].polygon
        ((0.0, 1.0), (2.0, 1.0), (2.0, 3.0), (0.0, 3.0))
    """
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)  # Reading a device file would never end.
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes, but outlines of regions need only a few thousand")
        held = parse_yaml(raw, _once)
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    entries = held.get("regions", held) if isinstance(held, Mapping) else held
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError(f"{path} has no regions: {_HOW}")
    return tuple(_shape(letter, entry, f"{path}, region {letter!r}") for letter, entry in entries.items())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; raise ValueError if a key is repeated, where YAML would use the last value."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return table


def _shape(letter: str, entry: Any, where: str) -> Shape:
    if not 0 < len(letter) <= _LONGEST:
        raise ValueError(f"{where}: a region's name must have 1 to {_LONGEST} characters; got {len(letter)}")
    if not isinstance(entry, Mapping) or len(entry) != 1 or next(iter(entry)) not in ("box", "polygon"):
        raise ValueError(f"{where}: expected one box or one polygon, got {_short(entry)}; {_HOW}")
    [(kind, given)] = entry.items()
    if kind == "box":
        numbers = _numbers(given, 4, f"{where}: a box is [x0, x1, y0, y1]")
        x0, x1, y0, y1 = numbers
        if x0 >= x1 or y0 >= y1:
            raise ValueError(f"{where}: a box is [x0, x1, y0, y1] with x0 < x1 and y0 < y1; got {_short(given)}")
        return Shape(shown(letter), ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
    if not isinstance(given, list) or len(given) < 3:
        raise ValueError(f"{where}: a polygon has at least three corners [x, y]; got {_short(given)}")
    corners = [
        _numbers(corner, 2, f"{where}, corner {i}: a corner is [x, y]") for i, corner in enumerate(given, start=1)
    ]
    return Shape(shown(letter), tuple((x, y) for x, y in corners))


def _numbers(given: Any, count: int, what: str) -> list[float]:
    fit = isinstance(given, list) and len(given) == count
    if not fit or not all(isinstance(v, int | float) and not isinstance(v, bool) and isfinite(v) for v in given):
        raise ValueError(f"{what}, a list of {count} finite numbers; got {_short(given)}")
    return [float(v) for v in given]


def _short(value: Any) -> str:
    text = reprlib.repr(value)  # YAML aliases can expand a small file enormously.
    return text if len(text) <= 80 else f"{text[:77]}…"
