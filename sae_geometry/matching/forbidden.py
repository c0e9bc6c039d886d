"""Loss in the total of an optimal matching if one of its pairs is forbidden, bounded by its dual prices."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.matching.assignment import Assignment, inverse
from sae_geometry.matching.bound import outside_options


def loss_if_forbidden(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], made: Assignment) -> Float64[np.ndarray, " n"]:
    """Return a lower bound on how far the largest total falls if a row's pair is forbidden; nan for unmatched rows.

    Without the pair (i, j), row i and column j are matched elsewhere or not at all, so every matching loses the
    smallest slack u_i + v_k − S_ik over k ≠ j and the smallest u_k + v_j − S_kj over k ≠ i. Two sweeps find both
    minima. The proven gap of the matching is subtracted, so a bound of 0 means that another matching may be as good.

    Args:
        made: the optimal matching of a and b, with its certificate.

    Raises:
        ValueError: the matching has no certificate.
    """
    proof = made.certificate
    if proof is None:
        raise ValueError(f"loss_if_forbidden needs an optimal matching, which has dual prices; got {made.method!r}")
    row_option, column_option = outside_options(len(a), len(b), proof.min_similarity)
    u, v = proof.row_duals, proof.column_duals
    back = inverse(made.partner, len(b))
    rows = u - np.maximum(_best_but(a, b, v, made.partner, made.absolute), row_option)
    cols = v - np.maximum(_best_but(b, a, u, back, made.absolute), column_option)
    matched = made.partner >= 0
    fall = np.full(len(a), np.nan)
    fall[matched] = np.maximum(rows[matched] + cols[made.partner[matched]] - proof.gap, 0.0)
    return fall


def _best_but(a: Tensor, b: Tensor, price: np.ndarray, partner: np.ndarray, absolute: bool) -> np.ndarray:
    """Return max_k (S_ik − price_k) over k ≠ partner_i for every row i, float64 [n]; −inf if there is no such k."""
    bias = torch.from_numpy(np.ascontiguousarray(price)).to(a.device)
    best = listing_sweep(a, b, 2, columns=False, absolute=absolute, column_bias=bias).rows
    score, index = best.score.cpu().numpy(), best.index[:, 0].cpu().numpy()
    return np.where(index == partner, score[:, 1], score[:, 0])
