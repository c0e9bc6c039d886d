"""Exact answers from the shortlists of any screen: re-score candidates in float64, order them, and certify the rows.

README.md proves the window of 2ε and the certificate. Rows that are not certified are swept again by `redo`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.loops.threads import in_parallel
from sae_geometry.kernels.types import Best, Scoring, Shortlist

_CHUNK_ENTRIES = 1 << 16  # shortlist entries per chunk, of a few dozen bytes each


def decide(
    x: Tensor, y: Tensor, shortlist: Shortlist, k: int, scoring: Scoring, threads: int = 1
) -> tuple[Best, Bool[Tensor, " n"]]:
    """Return the k best of every row, and a bool mask of the certified rows; rows are decided independently."""
    n, width = shortlist.scores.shape
    score = torch.empty((n, k), dtype=torch.float64, device=x.device)
    cosine, index = torch.empty_like(score), torch.empty((n, k), dtype=torch.int64, device=x.device)
    certified = torch.empty(n, dtype=torch.bool, device=x.device)
    step = max(1, _CHUNK_ENTRIES // max(width, k))

    def chunk(start: int) -> None:
        rows = slice(start, min(start + step, n))
        part = Shortlist(*(t[rows] for t in (shortlist.scores, shortlist.indices, shortlist.epsilon, shortlist.beyond)))
        score[rows], cosine[rows], index[rows] = _decide_chunk(x, y, start, part, k, scoring)
        certified[rows] = (part.beyond == -torch.inf) | (part.beyond < score[rows, -1])

    in_parallel(lambda _: chunk, range(0, n, step), threads if x.device.type == "cpu" else 1)
    return Best(score, cosine, index), certified


def _decide_chunk(
    x: Tensor, y: Tensor, row0: int, shortlist: Shortlist, k: int, scoring: Scoring
) -> tuple[Tensor, Tensor, Tensor]:
    n, width = shortlist.scores.shape
    screened = shortlist.scores.to(torch.float64)
    if k <= width:
        kth = screened.topk(k, dim=1).values[:, -1]
    else:
        kth = torch.full((n,), -torch.inf, dtype=torch.float64, device=x.device)
    near = (shortlist.indices >= 0) & (screened >= (kth - 2 * shortlist.epsilon)[:, None])
    rows, at = near.nonzero(as_tuple=True)
    cols = shortlist.indices[rows, at]
    dots = exact_dots(x, y, rows + row0, cols)
    score = torch.full((n, max(width, k)), -torch.inf, dtype=torch.float64, device=x.device)
    cosine = torch.full_like(score, torch.nan)
    index = torch.full(score.shape, torch.iinfo(torch.int64).max, dtype=torch.int64, device=x.device)
    score[rows, at], cosine[rows, at], index[rows, at] = scoring(dots, cols), dots, cols
    by_index = index.argsort(dim=1, stable=True)
    order = by_index.gather(1, score.gather(1, by_index).argsort(dim=1, descending=True, stable=True))[:, :k]
    score, cosine, index = score.gather(1, order), cosine.gather(1, order), index.gather(1, order)
    return score, cosine, torch.where(torch.isinf(score), -1, index)
