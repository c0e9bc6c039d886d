"""Entry point of the mutual, greedy and optimal matchings."""

from __future__ import annotations

import math
from typing import assert_never, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae_geometry.kernels.screens.products import full_precision
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Sweep
from sae_geometry.matching.assignment import Assignment, Progress, Step
from sae_geometry.matching.defaults import OneToOne
from sae_geometry.matching.greedy import greedy_partners
from sae_geometry.matching.optimal import optimal_partners
from sae_geometry.matching.pairs import partner_cosines

_SAMPLE = 16  # number of rows of `nearest` that are checked against the tensors


def match(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    method: OneToOne,
    *,
    absolute: bool = False,
    min_similarity: float | None = None,
    max_gap: float = 0.0,
    time_budget: float = math.inf,
    nearest: Sweep | None = None,
    progress: Progress | None = None,
) -> Assignment:
    """Match the rows of A with the rows of B, each at most once.

    S_ij is the exact inner product of the float32 rows rounded to float64, or its absolute value.

    * "mutual": i and j are each other's nearest in the canonical order (score descending, index ascending).
    * "greedy": the best remaining pair first, by (score descending, row ascending, column ascending); min(n, m) pairs.
    * "optimal": the greatest total Σ S_ij over all ways of matching min(n, m) pairs (the assignment problem); with
      `min_similarity=t` the greatest Σ (S_ij − t) over all matchings of any size, so that leaving a pair out is worth t
      and no pair below t is made. The result carries a certificate. If several matchings are optimal, the same
      one is always returned.

    The sweeps run where the tensors are; the optimal matching's solver runs on the CPU.

    Args:
        a: float32 [n, d].
        b: float32 [m, d] on the same device.
        method: "mutual", "greedy" or "optimal".
        absolute: rank by |cosine|.
        min_similarity: t as above, for "optimal" only.
        max_gap: stop "optimal" once its relative gap is proven to be at most this.
        time_budget: stop "optimal" after about this many seconds, but not before its first sweep is done.
        nearest: a finished two-sided sweep of a against b with the same `absolute`, any k, to avoid sweeping again.
        progress: called with a `Step` during the work, possibly from the threads of a sweep.

    Returns:
        Assignment. Ctrl-C during "optimal" returns the best matching so far with its gap, once the first sweep is done.

    Raises:
        ValueError: an unknown method, tensors that a sweep rejects, or a `nearest` of other tensors.

    Example:
        >>> import torch
        >>> match(torch.eye(3), torch.eye(3).roll(1, 0), "mutual").partner.tolist()
        [1, 2, 0]
    """
    if method not in get_args(OneToOne):
        raise ValueError(f"method must be one of {', '.join(get_args(OneToOne))}; got {method!r}")
    if method != "optimal" and (min_similarity is not None or max_gap > 0 or time_budget < math.inf):
        raise ValueError(
            f"min_similarity, max_gap and time_budget apply to 'optimal' only; got method={method!r}, so filter "
            "the pairs by similarity afterwards, which leaves the other pairs unchanged"
        )
    if min_similarity is not None and not math.isfinite(min_similarity):
        raise ValueError(f"min_similarity must be a finite number; got {min_similarity}")
    if not (max_gap >= 0 and time_budget >= 0):
        raise ValueError(f"max_gap and time_budget must not be negative; got {max_gap} and {time_budget}")
    if nearest is not None:
        _check_nearest(nearest, a, b, absolute)
    a, b, certificate = a.detach(), b.detach(), None
    stage = "greedy" if method == "greedy" else "candidates"
    share = None if progress is None else lambda done: progress(Step(stage, done))
    if method == "optimal":
        partner, certificate = optimal_partners(
            a, b, absolute=absolute, min_similarity=min_similarity, max_gap=max_gap, time_budget=time_budget,
            nearest=nearest, progress=progress,
        )  # fmt: skip
    elif method == "greedy":
        lists = None if nearest is None or nearest.cols is None else (nearest.rows.index, nearest.cols.index)
        partner, _ = greedy_partners(a, b, absolute=absolute, lists=lists, progress=share)
    elif method == "mutual":
        partner = _mutual_partners(nearest or sweep(a, b, absolute=absolute, progress=share))
    else:
        assert_never(method)
    cosine = partner_cosines(a, b, partner)
    made = partner >= 0
    total = math.fsum((np.abs(cosine) if absolute else cosine)[made].tolist())
    return Assignment(partner, cosine, method, absolute, int(made.sum()), total, certificate)


def _mutual_partners(nearest: Sweep) -> Int64[np.ndarray, " n"]:
    assert nearest.cols is not None
    forth, back = (side.index[:, 0].cpu().numpy() for side in (nearest.rows, nearest.cols))
    return np.where(back[forth] == np.arange(len(forth)), forth, -1)


def _check_nearest(nearest: Sweep, a: Tensor, b: Tensor, absolute: bool) -> None:
    if nearest.cols is None:
        raise ValueError("nearest must be a two-sided sweep: sweep(a, b, columns=True)")
    shapes = (nearest.rows.index.shape[0], nearest.cols.index.shape[0])
    if shapes != (a.shape[0], b.shape[0]):
        raise ValueError(f"nearest is a sweep of {shapes[0]:,} rows against {shapes[1]:,}; a and b have {len(a):,} and "
                         f"{len(b):,} rows")  # fmt: skip
    rows = torch.linspace(0, len(a) - 1, min(len(a), _SAMPLE), dtype=torch.float64).round().to(a.device, torch.int64)
    with full_precision():
        screened = a[rows] @ b.T
    best = (screened.abs() if absolute else screened).amax(dim=1).to(torch.float64)
    claimed = nearest.rows.score[rows.to(nearest.rows.score.device), 0].to(a.device)
    near = 1e-4 * float(a[rows].norm(dim=1).max() * b.norm(dim=1).max())
    if bool(((best - claimed).abs() > near).any()):
        raise ValueError(
            f"nearest is not a sweep of a and b with absolute={absolute}: its best scores differ; pass nearest=None"
        )
