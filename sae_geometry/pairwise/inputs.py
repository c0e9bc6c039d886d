"""Inputs of a comparison: their descriptions in results, and their distinct names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from sae_geometry.dictionary import Dictionary


def describe_input(d: Dictionary) -> dict[str, Any]:
    """Return an input's identity, space, size and source of its dead-latent filter as a JSON-ready dict."""
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


def several(dictionaries: Any) -> list[Any]:
    """Return a list of dictionaries, given as a sequence or as a single dictionary (an address, an array, …)."""
    many = isinstance(dictionaries, Sequence) and not isinstance(dictionaries, str)
    return list(dictionaries) if many else [dictionaries]


def distinct(dictionaries: Sequence[Dictionary]) -> list[Dictionary]:
    """Return the dictionaries, renamed by `distinct_names` if some names are equal."""
    names = distinct_names([d.name for d in dictionaries], [d.address for d in dictionaries])
    return [d if d.name == name else d.renamed(name) for d, name in zip(dictionaries, names, strict=True)]


def distinct_names(given: Sequence[str], addresses: Sequence[str | None]) -> list[str]:
    """Return distinct names: equal names are followed by the selection in their address, or else by a number.

    Example:
        >>> distinct_names(["x", "x", "y"], ["x.pt::model=0", "x.pt::model=1", None])
        ['x model=0', 'x model=1', 'y']
        >>> distinct_names(["x", "x"], [None, None])
        ['x', 'x (2)']
    """
    chosen = [(address or "").partition("::")[2].replace("::", " ") for address in addresses]
    names = [
        f"{name} {choice}" if choice and given.count(name) > 1 else name
        for name, choice in zip(given, chosen, strict=True)
    ]
    out: list[str] = []
    for name in names:
        free, n = name, 2
        while free in out or (free != name and free in names):
            free, n = f"{name} ({n})", n + 1
        out.append(free)
    return out


def activity(d: Dictionary) -> dict[str, pd.api.extensions.ExtensionArray]:
    """Return the columns `alive` (boolean) and `frequency` (share of tokens) of a table of latents; null if unknown."""
    alive = [None] * d.n_latents if d.alive_mask is None else d.alive_mask.tolist()
    frequency = [None] * d.n_latents if d.frequency is None else d.frequency.tolist()
    return {"alive": pd.array(alive, dtype="boolean"), "frequency": pd.array(frequency, dtype="Float64")}
