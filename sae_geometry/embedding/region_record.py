"""Record of a layout's regions, saved as `regions.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.regions import Regions
from sae_geometry.labels.regions import TEST as TOKENS_TEST
from sae_geometry.results.result import SCHEMA_VERSION
from sae_geometry.sources import neuronpedia_lists


def regions_record(
    found: Regions, dictionaries: Sequence[Dictionary], run_of: np.ndarray, latent_id: np.ndarray
) -> dict[str, Any]:
    """Return the contents of `regions.json`, given the run and original id of each point, int64 [N].

    The key `neuronpedia_lists` has URLs of quick lists of up to 150 latents each, for latents with known pages.
    """
    regions = []
    for region in found.regions:
        owner, ids = run_of[region.members], latent_id[region.members]
        links = neuronpedia_lists(
            ((dictionaries[o], int(i)) for o, i in zip(owner, ids, strict=True)), f"region {region.letter}"
        )
        by_run = [
            {
                "run": name,
                "count": int(region.counts[r]),
                "share_at_equal_sizes": float(region.shares[r]),
                "p": float(region.p_values[r]),
                "q": float(region.q_values[r]),
                "latent_ids": ids[owner == r].tolist(),
            }
            for r, name in enumerate(found.names)
        ]
        regions.append(
            {
                "letter": region.letter,
                "size": region.size,
                "verdict": region.verdict,
                "center": list(region.center),
                "outline": [list(corner) for corner in region.outline],
                "runs": by_run,
                "tokens": [asdict(mark) for mark in region.marks],
                "neuronpedia_lists": links,
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "how": found.how,
        "params": dict(found.params),
        "test": found.test_in_words(),
        "tokens_test": TOKENS_TEST,
        "runs": [{"run": name, "count": int(n)} for name, n in zip(found.names, found.totals, strict=True)],
        "share_inside": found.share_inside,
        "regions": regions,
    }
