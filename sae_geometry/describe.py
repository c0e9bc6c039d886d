"""How results speak of their inputs and of themselves: plain values, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sae_geometry.dictionary import Dictionary


def describe_input(d: Dictionary) -> dict[str, Any]:
    """What a result says of an input: identity, space, size and the source of its dead-latent filter. JSON-ready."""
    return {
        "name": d.name,
        "address": d.address,
        "layout": d.layout,
        "fingerprint": d.fingerprint,
        "model": d.model,
        "hook_point": d.hook_point,
        "n_latents": d.n_latents,
        "d_in": d.d_in,
        "latents": d.alive.describe(),
        "alive": asdict(d.alive),
        "notes": list(d.notes),
        "metadata": {k: v for k, v in d.metadata.items() if isinstance(v, str | int | float | bool)},
    }


def distinct(dictionaries: Sequence[Dictionary]) -> list[Dictionary]:
    """The dictionaries under names that differ: later twins are numbered (x, x → x, x (2))."""
    names = [d.name for d in dictionaries]
    out: list[str] = []
    for name in names:
        free, n = name, 2
        while free in out or (free != name and free in names):
            free, n = f"{name} ({n})", n + 1
        out.append(free)
    return [d if d.name == name else d.renamed(name) for d, name in zip(dictionaries, out, strict=True)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line a row, its cells padded to columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def or_dash(value: float, form: str) -> str:
    """The number in this format; a dash where it is nan, that is, unknown."""
    return "–" if math.isnan(value) else format(value, form)


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written through, so that a frozen result is frozen."""
    view = array.view()
    view.flags.writeable = False
    return view


def clipped(cosine: np.ndarray) -> np.ndarray:
    """Return cosines as results hold them, within −1 and 1, nan where unknown.

    The score that decides is the exact product of float32 rows, whose norms are 1 up to rounding: for two equal
    directions it may be 1.0000001, and no reader should have to wonder at that.

    Example:
        >>> clipped(np.array([1.0000001, 0.5, np.nan])).tolist()
        [1.0, 0.5, nan]
    """
    return np.clip(cosine, -1.0, 1.0)


def scalars(record: Any) -> dict[str, Any]:
    """The plain-valued fields of a dataclass (or mapping), for JSON."""
    items = record.items() if isinstance(record, Mapping) else vars(record).items()
    return {k: v for k, v in items if v is None or isinstance(v, str | int | float | bool)}
