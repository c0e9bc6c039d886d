"""Null models of similarity: isotropic directions, and controls built from the dictionaries themselves.

`isotropic` has closed forms. `turned` and `controls` measure the similarity of unrelated latents on the dictionaries
themselves; `competition` determines which partners are significantly closer.
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
    How,
    OwnCache,
    OwnLists,
    TurnedSweeps,
    default_turns,
    own_lists,
    pair_controls,
    turned_controls,
    turned_sweeps,
    with_own,
)
from sae_geometry.nulls.isotropic import expected_max_cosine, random_directions
from sae_geometry.nulls.one_to_one import Expected, own_pairs, turned_pairs
from sae_geometry.nulls.turned import principal_axes, turned, turned_copies
