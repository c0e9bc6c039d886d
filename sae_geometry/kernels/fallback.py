"""Fallback for rows that a shortlist could not certify: score every column that may be among the k best.

Such rows mostly have ties, so both sides are first deduplicated bitwise: equal rows have equal answers (except for
self-pairs), and among equal columns only the first k by index can be among the k best.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from sae_geometry.kernels.duplicates import first_equal, rank_among_equals
from sae_geometry.kernels.error_bounds import float32_error, row_norms
from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.screens.products import full_precision
from sae_geometry.kernels.types import Best, Scoring

_ROWS = 256
_CHUNK_ELEMENTS = 1 << 20  # maximum entries in a block of columns; its scores and hits take four times as many


def redo(x: Tensor, y: Tensor, rows: Int64[Tensor, " failed"], best: Best, scoring: Scoring) -> Best:
    """Return `best` with the given rows recomputed from every column that float32 cannot rule out."""
    k = best.score.shape[1]
    keep = k + 1 if scoring.exclude_self else k
    first = first_equal(x[rows], up_to_sign=False)
    asked, member_of = torch.unique(first, return_inverse=True)
    rank = rank_among_equals(first_equal(y, scoring.column_bias, up_to_sign=scoring.absolute))
    live = (rank < keep).nonzero().flatten()
    norms, bias = row_norms(x[rows[asked]]), scoring.column_bias
    epsilon = float32_error(
        norms, float(row_norms(y).max()), x.shape[1], 0.0 if bias is None else float(bias.abs().max())
    )
    score, cosine, index = best.score.clone(), best.cosine.clone(), best.index.clone()
    for start in range(0, asked.shape[0], _ROWS):
        stop = min(start + _ROWS, asked.shape[0])
        chunk = rows[asked[start:stop]]
        floor = best.score[chunk, -1]
        found = _every_column(x, y, chunk, live, keep, floor, epsilon[start:stop], scoring)
        members = ((member_of >= start) & (member_of < stop)).nonzero().flatten()
        for part in members.split(max(1, _CHUNK_ELEMENTS // keep)):
            lists = [t.to(x.device)[member_of[part] - start] for t in found]
            if scoring.exclude_self:
                lists = _without(lists, rows[part], k)
            score[rows[part]], cosine[rows[part]], index[rows[part]] = (t[:, :k] for t in lists)
    return Best(score, cosine, index)


def _every_column(
    x: Tensor,
    y: Tensor,
    chunk: Tensor,
    live: Tensor,
    keep: int,
    floor: Float64[Tensor, " r"],
    epsilon: Float64[Tensor, " r"],
    scoring: Scoring,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's `keep` best columns in `live`, self included; `floor` bounds the last score from below."""
    r = chunk.shape[0]
    score = np.full((r, keep), -np.inf)
    cosine = np.full((r, keep), np.nan)
    index = np.full((r, keep), -1, dtype=np.int64)
    rows = x[chunk]
    bias = None if scoring.column_bias is None else scoring.column_bias.to(torch.float32)
    for cols in live.split(max(64, min(_CHUNK_ELEMENTS // x.shape[1], _CHUNK_ELEMENTS // _ROWS))):
        with full_precision():
            screened = rows @ y[cols].T
        if scoring.absolute:
            screened = screened.abs_()
        if bias is not None:
            screened = screened.sub_(bias[cols])
        hit_row, hit_col = (screened >= _rounded_down(floor - epsilon)[:, None]).nonzero(as_tuple=True)
        if hit_row.numel() == 0:
            continue
        dots = exact_dots(x, y, chunk[hit_row], cols[hit_col])
        exact = scoring(dots, cols[hit_col])
        # Sort all known candidates by row, then score descending, then index ascending.
        who = np.concatenate([np.repeat(np.arange(r), keep), hit_row.cpu().numpy()])
        all_score = np.concatenate([score.ravel(), exact.cpu().numpy()])
        all_cosine = np.concatenate([cosine.ravel(), dots.cpu().numpy()])
        all_index = np.concatenate([index.ravel(), cols[hit_col].cpu().numpy()])
        order = np.lexsort((all_index, -all_score, who))
        start = np.searchsorted(who[order], np.arange(r))
        take = order[start[:, None] + np.arange(keep)[None, :]]
        score, cosine, index = all_score[take], all_cosine[take], all_index[take]
        floor = torch.maximum(floor, torch.from_numpy(score[:, -1]).to(floor.device))
    return torch.from_numpy(score), torch.from_numpy(cosine), torch.from_numpy(index)


def _without(lists: list[Tensor], own: Tensor, k: int) -> list[Tensor]:
    """Drop each row's own index from its list, and return the first k of the rest."""
    order = (lists[2] == own[:, None]).to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
    return [t.gather(1, order) for t in lists]


def _rounded_down(x: Float64[Tensor, " r"]) -> Tensor:
    y = x.to(torch.float32)
    return torch.where(y.to(torch.float64) > x, torch.nextafter(y, torch.tensor(-torch.inf, device=x.device)), y)
