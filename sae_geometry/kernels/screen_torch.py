"""The screen of any torch device in whole-tensor operations: a block product, its top K, a merge.

It is what a GPU runs; the tests run the same code on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae_geometry.kernels.products import full_precision
from sae_geometry.kernels.screen import Meter, Shortlist, Task, count_blocks, shortlist_of
from sae_geometry.kernels.screen_cpu import float32_epsilons, shortlist_width

Lists = tuple[Tensor, Tensor]


def screen_torch(task: Task) -> tuple[Shortlist, Shortlist | None]:
    """float32 products in torch, TF32 off: each score within γ_d ‖x‖‖y‖ of exact."""
    a, b, within = task.a, task.others, task.within
    n, m, width, block = a.shape[0], b.shape[0], shortlist_width(task.k), task.blocks
    rows = _no_lists(n, width, a.device)
    cols = _no_lists(m, width, a.device) if task.columns or within else None
    bias = None if task.column_bias is None else task.column_bias.to(a.device, torch.float32)
    meter = Meter(task.progress, count_blocks(n, m, block, within))
    with full_precision():
        for i0 in range(0, n, block.rows):
            i1 = min(i0 + block.rows, n)
            for j0 in range(i0 if within else 0, m, block.cols):
                j1 = min(j0 + block.cols, m)
                scores = a[i0:i1] @ b[j0:j1].T
                if task.absolute:
                    scores.abs_()
                if bias is not None:
                    scores.sub_(bias[j0:j1])
                if within and j0 < i1:
                    at_row = torch.arange(i0, i1, device=a.device)[:, None]
                    scores.masked_fill_(torch.arange(j0, j1, device=a.device)[None, :] <= at_row, -torch.inf)
                _offer(rows, slice(i0, i1), _top(scores, width, j0))
                if cols is not None:
                    _offer(cols, slice(j0, j1), _top(scores.T, width, i0))
                meter.tick()
    if within:
        assert cols is not None
        _offer(rows, slice(0, n), cols)
        cols = None
    row_epsilon, col_epsilon = float32_epsilons(task)
    return _shortlist(rows, row_epsilon), None if cols is None else _shortlist(cols, col_epsilon)


def _no_lists(n: int, width: int, device: torch.device) -> Lists:
    return (
        torch.full((n, width), -torch.inf, device=device),
        torch.full((n, width), -1, dtype=torch.int64, device=device),
    )


def _top(scores: Tensor, width: int, offset: int) -> Lists:
    values, indices = torch.topk(scores, min(width, scores.shape[1]), dim=1)
    return values, indices + offset


def _offer(lists: Lists, where: slice, more: Lists) -> None:
    """Keep the best of what is listed and what is offered, in place."""
    values, indices = lists
    both = torch.cat([values[where], more[0]], dim=1)
    ids = torch.cat([indices[where], more[1]], dim=1)
    values[where], at = torch.topk(both, values.shape[1], dim=1)
    indices[where] = ids.gather(1, at)


def _shortlist(lists: Lists, epsilon: Tensor) -> Shortlist:
    scores, indices = lists
    return shortlist_of(scores, torch.where(scores == -torch.inf, -1, indices), epsilon)
