"""Null expectation of the maximum cosine between unrelated directions.

The isotropic null: the m candidates are independent, uniform on the unit sphere of R^d. Then the cosine to any fixed
direction has distribution F with (1 + t)/2 ~ Beta((d−1)/2, (d−1)/2), the maximum of m of them has distribution F^m,
and E[max] = ∫ t dF^m(t). Real decoders are anisotropic, so the isotropic value is a lower bound on the null
expectation.
"""

from __future__ import annotations

import numpy as np

_PANELS = 8  # quadrature panels of 32 nodes each


def expected_max_cosine(n_candidates: int, d_in: int, *, absolute: bool = False) -> float:
    """Return E[max_j cos(x, y_j)] for a fixed x and `n_candidates` independent isotropic directions in R^d_in.

    The value grows like √(2 ln m / d), and is computed by integration over the quantiles of the maximum, to about six
    digits. With `absolute`, cos is replaced by |cos|, whose square is Beta(1/2, (d−1)/2).

    Args:
        n_candidates: m, the number of candidates (latents of the other dictionary, or n − 1 within one dictionary).
        d_in: d, the width.
        absolute: whether similarity is |cos|.

    Raises:
        ValueError: fewer than one candidate or dimension.

    Example:
        >>> round(expected_max_cosine(46_080, 768), 3)
        0.151
    """
    if n_candidates < 1 or d_in < 1:
        raise ValueError(f"n_candidates and d_in must be at least one; got {n_candidates} and {d_in}")
    if d_in == 1:  # A line has only two directions.
        return 1.0 if absolute else 1.0 - 2.0 * 0.5**n_candidates
    # Integrate over quantiles of the maximum, E = ∫₀¹ F⁻¹(q^(1/m)) dq, and compute F⁻¹ from 1 − q^(1/m), since for
    # large m every relevant q^(1/m) is too close to 1 for float64.
    nodes, weights = np.polynomial.legendre.leggauss(32)
    edges = (1 - np.cos(np.pi * np.arange(_PANELS + 1) / _PANELS)) / 2  # Panels are narrow where F⁻¹ is steep.
    widths = np.diff(edges)[:, None]
    q = (edges[:-1, None] + widths * (nodes + 1) / 2).ravel()
    tail = -np.expm1(np.log(q) / n_candidates)
    return float((widths * weights / 2).ravel() @ _upper_quantile(tail, d_in, absolute))


def _upper_quantile(tail: np.ndarray, d_in: int, absolute: bool) -> np.ndarray:
    """Return the t with P(cos ≥ t) = tail, or P(|cos| ≥ t) = tail if `absolute`."""
    from scipy.special import betaincinv

    if absolute:
        return np.sqrt(1 - betaincinv((d_in - 1) / 2, 0.5, tail))
    small = np.minimum(tail, 1 - tail)
    t = np.sqrt(1 - betaincinv((d_in - 1) / 2, 0.5, np.clip(2 * small, 0, 1)))
    return np.where(tail <= 0.5, t, -t)


def random_directions(n: int, d_in: int, *, seed: int = 0) -> np.ndarray:
    """Return n independent directions, uniform on the sphere and determined by the seed, float32 [n, d_in].

    Raises:
        ValueError: fewer than one direction or dimension.

    Example:
        >>> import sae_geometry as sg
        >>> sg.within(sg.random_directions(500, 64)).mmcs < 0.5
        True
    """
    if n < 1 or d_in < 1:
        raise ValueError(f"n and d_in must be at least one; got {n} and {d_in}")
    g = np.random.default_rng(seed).standard_normal((n, d_in))
    return np.asarray(g / np.linalg.norm(g, axis=1, keepdims=True), dtype=np.float32)
