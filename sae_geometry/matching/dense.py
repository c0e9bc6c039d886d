"""Optimal by scipy's dense solver, for small dictionaries."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from sae_geometry.matching.pairs import pair_cosines

LARGEST = 4096


def dense_partners(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, absolute: bool = False
) -> Int64[np.ndarray, " n"]:
    """The assignment of greatest total canonical score; min(n, m) pairs."""
    from scipy.optimize import linear_sum_assignment

    n, m = a.shape[0], b.shape[0]
    if max(n, m) > LARGEST:
        raise ValueError(
            f"matching='optimal' forms the n×m matrix in float64 and takes up to {LARGEST:,} latents a side; got "
            f"{n:,} and {m:,}: use matching='greedy' or 'mutual', or fewer latents"
        )
    score = np.empty((n, m))
    columns = np.arange(m)
    for i in range(n):
        score[i] = pair_cosines(a, b, np.full(m, i), columns)
    rows, cols = linear_sum_assignment(np.abs(score) if absolute else score, maximize=True)
    partner = np.full(n, -1, dtype=np.int64)
    partner[rows] = cols
    return partner
