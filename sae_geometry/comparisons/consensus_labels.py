"""Labels of latents by the number of runs that found them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sae_geometry.comparisons.consensus import Consensus
from sae_geometry.labels.pairs import PairLabels, pair_labels

FOUND = ("in every run", "in several runs", "in one run")


def consensus_labels(c: Consensus) -> PairLabels | None:
    """Join labels to every latent of every run and to another member of its group; None without labels."""
    ids, n = c.member_ids, len(c.runs)
    frames = []
    for r, run in enumerate(c.runs):
        there = ids[:, r] >= 0
        others = np.where(np.arange(n) == r, -1, ids[there])  # [groups, runs], without its own
        other = (others >= 0).argmax(axis=1)
        names = np.array([d.name for d in c.runs], dtype=object)
        grouped = {
            "latent_id": ids[there, r],
            "partner_run": names[other],
            "partner_id": others[np.arange(len(others)), other],
            "cosine": c.similarity[there],
            "group": np.where(c.occupancy[there] == n, *FOUND[:2]),
        }
        alone = {"latent_id": c.orphans[r], "partner_id": -1, "cosine": np.nan, "group": FOUND[2]}
        frames += [pd.DataFrame(grouped).assign(run=run.name), pd.DataFrame(alone).assign(run=run.name)]
    table = pd.concat(frames, ignore_index=True)
    return pair_labels(table, c.runs, groups=table["group"].to_numpy(), names=FOUND)
