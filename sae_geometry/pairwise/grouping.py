"""How runs are told apart: by kind, layer and seed, as far as their sources say them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sae_geometry.dictionary import Dictionary

UNKNOWN = "unknown kind"


def kind_of(d: Dictionary) -> str:
    """ "local", "e2e", …, from the run's metadata; "unknown kind" where that does not say."""
    return str(d.metadata.get("kind") or UNKNOWN)


def layer_of(d: Dictionary) -> int | None:
    """The layer that the hook point names: 6 of blocks.6.hook_resid_pre; None where it names none."""
    found = re.search(r"(?:^|[._])(?:blocks|layers?|h)[._](\d+)(?=[._]|$)", d.hook_point or "")
    return int(found[1]) if found else None


def seed_of(d: Dictionary) -> int | str | None:
    """The seed of the run's training, from its metadata; None where that does not say."""
    said = d.metadata.get("seed")
    return said if isinstance(said, int | str) else None


def groups_of(runs: Sequence[Dictionary]) -> list[str]:
    """The group of each run: its kind, and where the runs have several hook points, its layer (or hook point) too.

    Runs of one group are those whose likeness is one question: seeds of the same training at the same place.

    Example:
        >>> import sae_geometry as sg
        >>> from sae_geometry.pairwise.grouping import groups_of
        >>> groups_of([sg.load("demo:local-seed0"), sg.load("demo:e2e-seed0")])
        ['local', 'e2e']
    """
    kinds = [kind_of(d) for d in runs]
    if len({d.hook_point for d in runs}) == 1:
        return kinds
    layers = [layer_of(d) for d in runs]
    told_apart = len({(d.hook_point, at) for d, at in zip(runs, layers, strict=True)}) == len(set(layers))
    places = [
        f"layer {at}" if told_apart and at is not None else d.hook_point or "unknown hook point"
        for d, at in zip(runs, layers, strict=True)
    ]
    return [f"{kind}, {place}" for kind, place in zip(kinds, places, strict=True)]


def labels_of(runs: Sequence[Dictionary]) -> list[str]:
    """The name of each run, with its seed where it is known and the name does not show it."""
    out = []
    for d in runs:
        seed = seed_of(d)
        shown = seed is None or re.search(rf"seed[\s_=-]*{re.escape(str(seed))}(?!\d)", d.name, re.IGNORECASE)
        out.append(d.name if shown else f"{d.name} (seed {seed})")
    return out
