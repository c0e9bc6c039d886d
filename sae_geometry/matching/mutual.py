"""Mutual: i and j are each other's nearest."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from sae_geometry.kernels.types import Sweep


def mutual_partners(nearest: Sweep) -> Int64[np.ndarray, " n"]:
    """Return partner[i] = j where j is i's nearest and i is j's, in the canonical order; −1 elsewhere.

    Uses only the first column of a two-sided sweep's lists.
    """
    assert nearest.cols is not None, "mutual needs the columns' nearest too"
    forth = nearest.rows.index[:, 0].cpu().numpy()
    back = nearest.cols.index[:, 0].cpu().numpy()
    return np.where(back[forth] == np.arange(forth.shape[0]), forth, -1).astype(np.int64)
