"""What chance gives: directions that have nothing to do with each other, isotropic or with a dictionary's own moments.

`isotropic` has closed forms; `matched` draws directions with the mean and second moment of a dictionary, which is the
honest null for decoders, whose directions crowd into part of the space.
"""

from __future__ import annotations

from sae_geometry.nulls.fdr import false_discovery_found
from sae_geometry.nulls.isotropic import cosine_tail, expected_max_cosine, random_directions
from sae_geometry.nulls.matched import MatchedNull, fit_matched_null, isotropic_null
from sae_geometry.nulls.nearest import NearestChance, PairedChance

__all__ = [
    "MatchedNull",
    "NearestChance",
    "PairedChance",
    "cosine_tail",
    "expected_max_cosine",
    "false_discovery_found",
    "fit_matched_null",
    "isotropic_null",
    "random_directions",
]
