"""Verification of a certificate from the tensors, the matching and the column prices, without trusting a solver."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae_geometry.kernels.sweep import sweep
from sae_geometry.matching.assignment import Assignment
from sae_geometry.matching.bound import Gap, gap_of, outside_options
from sae_geometry.matching.pairs import partner_cosines

_FEASIBLE = 1e-12


def verify(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], assignment: Assignment) -> Gap:
    """Recompute the optimality gap of a matching from its column prices; reject a certificate that claims too much.

    One new sweep gives r_i = max_j(S_ij − v_j) and thereby a bound on every matching (see `bound.gap_of`); the scores
    of the pairs are recomputed. Neither the solver nor its state is used.

    Args:
        a, b: the float32 tensors that were matched, [n, d] and [m, d].
        assignment: an optimal matching with its certificate.

    Returns:
        Gap: value, bound, gap and slack, as recomputed.

    Raises:
        ValueError: no certificate; a column out of range or matched twice; too few pairs; a wrong cosine; a pair
            below `min_similarity`; invalid prices; or a wider gap than the certificate claims.
    """
    certificate = assignment.certificate
    if certificate is None:
        raise ValueError(f"only an optimal matching has a certificate to verify; got method {assignment.method!r}")
    n, m = a.shape[0], b.shape[0]
    _check_pairs(assignment.partner, n, m, every=certificate.min_similarity is None)
    cosine = partner_cosines(a, b, assignment.partner)
    wrong = np.flatnonzero(~((cosine == assignment.cosine) | (np.isnan(cosine) & np.isnan(assignment.cosine))))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(f"row {i} is reported with cosine {assignment.cosine[i]}, but its pair has {cosine[i]}")
    score = np.abs(cosine) if assignment.absolute else cosine
    if certificate.min_similarity is not None and bool((score < certificate.min_similarity).any()):
        raise ValueError(f"a pair scores {np.nanmin(score)}, below min_similarity={certificate.min_similarity}")
    u, v = certificate.row_duals, certificate.column_duals
    if u.shape != (n,) or v.shape != (m,) or not (np.isfinite(u).all() and np.isfinite(v).all()):
        raise ValueError(f"expected {n:,} row and {m:,} column prices, all finite; got shapes {u.shape} and {v.shape}")
    bias = torch.from_numpy(v).to(a.device)
    found = sweep(a, b, 1, columns=False, absolute=assignment.absolute, column_bias=bias)
    upper = found.rows.score[:, 0].cpu().numpy()
    if bool((u < upper - _FEASIBLE).any()):
        i = int((u - upper).argmin())
        raise ValueError(f"the price {u[i]} of row {i} is below max_j(S_ij − v_j) = {upper[i]}")
    gap = gap_of(score, upper, v, outside_options(n, m, certificate.min_similarity))
    if gap.gap > certificate.gap + gap.slack:
        raise ValueError(f"the prices leave a gap of {gap.gap:.3g}; the certificate claims {certificate.gap:.3g}")
    return gap


def _check_pairs(partner: Int64[np.ndarray, " n"], n: int, m: int, *, every: bool) -> None:
    if partner.shape != (n,):
        raise ValueError(f"the matching must have one partner for each of {n:,} rows; got shape {partner.shape}")
    used = partner[partner != -1]
    if bool(((used < 0) | (used >= m)).any()):
        raise ValueError(f"partners must lie in 0…{m - 1:,}; got {int(used.min()):,}…{int(used.max()):,}")
    columns, times = np.unique(used, return_counts=True)
    if bool((times > 1).any()):
        raise ValueError(f"column {int(columns[times.argmax()])} is matched {int(times.max())} times")
    if every and used.size != min(n, m):
        raise ValueError(f"the matching has {used.size:,} pairs, but a complete matching has {min(n, m):,}")
