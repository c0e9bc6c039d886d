"""Null models of similarity: isotropic directions, and controls built from the dictionaries themselves.

`isotropic` has closed forms. `turned` and `controls` measure the similarity of unrelated latents on the dictionaries;
`competition` determines which partners are significantly closer.
"""

from __future__ import annotations

from sae_geometry.nulls.competition import (
    LISTED,
    Controls,
    Share,
    balance,
    beyond_controls,
    crowd,
    excess,
    q_values,
    undecided,
)
from sae_geometry.nulls.controls import (
    SAME,
    How,
    OwnCache,
    TurnedSweeps,
    default_turns,
    own_similarities,
    pair_controls,
    turned_controls,
    turned_sweeps,
    with_own,
    within_controls,
)
from sae_geometry.nulls.isotropic import cosine_tail, expected_max_cosine, random_directions
from sae_geometry.nulls.one_to_one import Expected, own_pairs, turned_pairs
from sae_geometry.nulls.turned import Axes, principal_axes, turned, turned_copies

__all__ = [
    "LISTED",
    "SAME",
    "Axes",
    "Controls",
    "Expected",
    "How",
    "OwnCache",
    "Share",
    "TurnedSweeps",
    "balance",
    "beyond_controls",
    "cosine_tail",
    "crowd",
    "default_turns",
    "excess",
    "expected_max_cosine",
    "own_pairs",
    "own_similarities",
    "pair_controls",
    "principal_axes",
    "q_values",
    "random_directions",
    "turned",
    "turned_controls",
    "turned_copies",
    "turned_pairs",
    "turned_sweeps",
    "undecided",
    "with_own",
    "within_controls",
]
