"""One decision path for every screen: re-score the shortlisted in float64, order, certify, and redo what fails.

Let ε bound |screened − exact| and let row i's shortlist hold its K best screened scores. Then

* a listed column whose screened score is below (screened k-th) − 2ε cannot be among the k best: skip it;
* a column that is not listed has exact score at most (screened K-th) + ε: if that is below the exact k-th of the
  listed, the row is *certified*; otherwise the row is swept again, keeping every column within reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.screen import Shortlist

_REDO_ROWS = 256
_REDO_COLS = 8192


@dataclass(frozen=True)
class Best:
    """The k best partners of every row, by (score descending, index ascending).

    score: float64 [n, k], what the order is by; cosine: float64 [n, k], the signed inner product; index: int64 [n, k].
    Where a row has fewer than k partners: −inf, nan and −1.
    """

    score: Float64[Tensor, "n k"]
    cosine: Float64[Tensor, "n k"]
    index: Int64[Tensor, "n k"]


@dataclass(frozen=True)
class Scoring:
    """How the exact score follows from the exact inner product, and whether a row may pair with itself."""

    absolute: bool = False
    column_bias: Tensor | None = None
    exclude_self: bool = False

    def __call__(self, cosine: Tensor, cols: Tensor) -> Tensor:
        """float64 scores of pairs with these signed cosines and these column indices."""
        score = cosine.abs() if self.absolute else cosine
        return score if self.column_bias is None else score - self.column_bias[cols]


def decide(
    x: Tensor, y: Tensor, shortlist: Shortlist, k: int, epsilon: float, scoring: Scoring
) -> tuple[Best, Tensor]:
    """The k best of every row and a bool mask of the rows they are certified for."""
    n, width = shortlist.scores.shape
    screened = shortlist.scores.to(torch.float64)
    listed = shortlist.indices >= 0
    kth = screened[:, k - 1] if k <= width else torch.full((n,), -torch.inf, dtype=torch.float64, device=x.device)
    rows, at = (listed & (screened >= (kth - 2 * epsilon)[:, None])).nonzero(as_tuple=True)
    cols = shortlist.indices[rows, at]
    dots = exact_dots(x, y, rows, cols)
    score = torch.full((n, max(width, k)), -torch.inf, dtype=torch.float64, device=x.device)
    cosine = torch.full_like(score, torch.nan)
    index = torch.full(score.shape, torch.iinfo(torch.int64).max, dtype=torch.int64, device=x.device)
    score[rows, at], cosine[rows, at], index[rows, at] = scoring(dots, cols), dots, cols
    by_index = index.argsort(dim=1, stable=True)
    order = by_index.gather(1, score.gather(1, by_index).argsort(dim=1, descending=True, stable=True))[:, :k]
    score, cosine, index = score.gather(1, order), cosine.gather(1, order), index.gather(1, order)
    index = torch.where(torch.isinf(score), -1, index)
    beyond = torch.where(listed[:, -1], screened[:, -1], -torch.inf)
    certified = (beyond == -torch.inf) | (beyond + epsilon < score[:, -1])
    return Best(score, cosine, index), certified


def redo(x: Tensor, y: Tensor, rows: Tensor, best: Best, epsilon: float, scoring: Scoring) -> Best:
    """`best` with these rows swept again, every column within ε of the k-th found so far scored exactly."""
    score, cosine, index = best.score.clone(), best.cosine.clone(), best.index.clone()
    for start in range(0, rows.shape[0], _REDO_ROWS):
        chunk = rows[start : start + _REDO_ROWS]
        parts = _redo_chunk(x, y, chunk, best.score[chunk], epsilon, scoring)
        for whole, part in zip((score, cosine, index), parts, strict=True):
            whole[chunk] = part.to(whole.device)
    return Best(score, cosine, index)


def _redo_chunk(
    x: Tensor, y: Tensor, chunk: Tensor, so_far: Tensor, epsilon: float, scoring: Scoring
) -> tuple[Tensor, Tensor, Tensor]:
    r, k = so_far.shape
    score = np.full((r, k), -np.inf)
    cosine = np.full((r, k), np.nan)
    index = np.full((r, k), -1, dtype=np.int64)
    floor = so_far[:, -1]  # a lower bound on the exact k-th, raised as better ones are found
    for j0 in range(0, y.shape[0], _REDO_COLS):
        j1 = min(j0 + _REDO_COLS, y.shape[0])
        cols = torch.arange(j0, j1, device=x.device)
        screened = scoring((x[chunk] @ y[j0:j1].T).to(torch.float64), cols)
        if scoring.exclude_self:
            screened = screened.masked_fill(cols[None, :] == chunk[:, None], -torch.inf)
        hit_row, hit_col = ((screened >= (floor - epsilon)[:, None]) & (screened > -torch.inf)).nonzero(as_tuple=True)
        dots = exact_dots(x, y, chunk[hit_row], cols[hit_col])
        exact = scoring(dots, cols[hit_col])
        who = np.concatenate([np.repeat(np.arange(r), k), hit_row.cpu().numpy()])
        all_score = np.concatenate([score.ravel(), exact.cpu().numpy()])
        all_cosine = np.concatenate([cosine.ravel(), dots.cpu().numpy()])
        all_index = np.concatenate([index.ravel(), cols[hit_col].cpu().numpy()])
        order = np.lexsort((all_index, -all_score, who))
        first = np.searchsorted(who[order], np.arange(r))
        take = order[first[:, None] + np.arange(k)[None, :]]
        score, cosine, index = all_score[take], all_cosine[take], all_index[take]
        floor = torch.maximum(floor, torch.from_numpy(score[:, -1]).to(floor.device))
    return torch.from_numpy(score), torch.from_numpy(cosine), torch.from_numpy(index)
