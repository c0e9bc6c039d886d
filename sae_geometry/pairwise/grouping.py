"""Grouping of runs by kind, layer and seed, as far as their sources provide them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sae_geometry.dictionary import Dictionary
from sae_geometry.pairwise.same_space import place_key
from sae_geometry.sources.layouts.places import layer_named

UNKNOWN = "unknown kind"


def kind_of(d: Dictionary) -> str:
    """Return a run's kind from its metadata, such as "local" or "e2e"; "unknown kind" if it is missing."""
    return str(d.metadata.get("kind") or UNKNOWN)


def layer_of(d: Dictionary) -> int | None:
    """Return the layer in a run's hook point, such as 6 in blocks.6.hook_resid_pre; None if there is none."""
    return layer_named(d.hook_point or "")


def seed_of(d: Dictionary) -> int | str | None:
    """Return a run's training seed from its metadata; None if it is missing."""
    said = d.metadata.get("seed")
    return said if isinstance(said, int | str) else None


def groups_of(runs: Sequence[Dictionary]) -> list[str]:
    """Return the group of each run: its kind, and its layer (or hook point) if the runs have several hook points.

    Runs of one group are replicates: seeds of the same training at the same hook point.
    """
    kinds, first = [kind_of(d) for d in runs], dict[str | None, Dictionary]()
    same = [first.setdefault(place_key(d), d) for d in runs]  # A hook point may have several spellings.
    if len(first) == 1:
        return kinds
    layers = [layer_of(d) for d in same]
    distinct = len({(d.hook_point, at) for d, at in zip(same, layers, strict=True)}) == len(set(layers))
    places = [
        f"layer {at}" if distinct and at is not None else d.hook_point or "unknown hook point"
        for d, at in zip(same, layers, strict=True)
    ]
    return [f"{kind}, {place}" for kind, place in zip(kinds, places, strict=True)]


def labels_of(runs: Sequence[Dictionary]) -> list[str]:
    """Return the name of each run, followed by its seed if that is known and not part of the name."""
    out = []
    for d in runs:
        seed = seed_of(d)
        shown = seed is None or re.search(rf"seed[\s_=-]*{re.escape(str(seed))}(?!\d)", d.name, re.IGNORECASE)
        out.append(d.name if shown else f"{d.name} (seed {seed})")
    return out
