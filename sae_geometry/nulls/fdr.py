"""Which of many p-values are discoveries, with the false discovery rate controlled."""

from __future__ import annotations

import numpy as np


def false_discovery_found(p: np.ndarray, rate: float = 0.05) -> np.ndarray:
    """bool [n]: the hypotheses rejected by Benjamini and Hochberg's procedure; nan is never rejected.

    The largest k with p_(k) ≤ rate · k / n, and every p up to p_(k). The expected share of false ones among them is
    at most `rate` where the p-values are independent or positively dependent. (Benjamini & Hochberg 1995.)

    Args:
        p: p-values [n]; nan where there is none, which counts in no n.
        rate: the false discovery rate allowed, in (0, 1).

    Raises:
        ValueError: a rate outside (0, 1).
    """
    from scipy.stats import false_discovery_control

    if not 0 < rate < 1:
        raise ValueError(f"a false discovery rate lies between 0 and 1; got {rate}")
    found = np.zeros(p.shape, dtype=bool)
    known = ~np.isnan(p)
    if known.any():
        found[known] = false_discovery_control(p[known], method="bh") <= rate
    return found
