"""Format values and text for printing and JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_geometry.io.escaping import cells

_FILLER = "\ufdd0"  # Text for display never contains this non-character.


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines with aligned columns, two spaces apart."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c + " " * (w - cells(c)) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def wrap(text: str, width: int, **how: Any) -> list[str]:
    """Wrap text as `textwrap.wrap` does, but by terminal cells instead of characters.

    Example:
        >>> wrap("a dictionary 辞書", 16)
        ['a dictionary', '辞書']
    """
    filled = "".join(c + _FILLER * (cells(c) - 1) for c in text)
    return [line.replace(_FILLER, "") for line in textwrap.wrap(filled, width, **how)]


def counted(n: int, noun: str) -> str:
    """Format a count with its noun: "1 latent", "2,000 latents"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def known_mean(values: np.ndarray) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def or_dash(value: float, form: str) -> str:
    """Format a number, or return a dash for nan (unknown)."""
    return "–" if math.isnan(value) else format(value, form)


def percent(share: float) -> str:
    """Format a share as a percentage; "< 0.1%" for a tiny share, and a dash for nan.

    Example:
        >>> percent(0.4064), percent(0.0), percent(1e-6)
        ('40.6%', '0.0%', '< 0.1%')
    """
    if 0 < share < 0.0005:
        return "< 0.1%"
    return "–" if math.isnan(share) else f"{100 * share:.1f}%"


def scalars(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass whose values JSON can hold: strings, numbers, booleans and None."""
    return {k: v for k, v in vars(record).items() if v is None or isinstance(v, str | int | float | bool)}


def ends(texts: Sequence[str], most: int = 12) -> list[str]:
    """Return the strings; if there are more than `most`, return only the first and last few of them.

    Example:
        >>> ends(list("abcdef"), 4)
        ['a', 'b', '…', 'e', 'f']
    """
    half = most // 2
    return list(texts) if len(texts) <= most else [*texts[:half], "…", *texts[-half:]]


def few(notes: Sequence[str], most: int = 30) -> tuple[str, ...]:
    """Return at most `most` distinct notes, followed by the number of other notes.

    Example:
        >>> few(["a", "b", "a", "c", "d"], 2)
        ('a', 'b', 'and 2 more')
    """
    once = list(dict.fromkeys(notes))
    more = len(once) - most
    return tuple(once) if more <= 0 else (*once[:most], f"and {more:,} more")
