"""Screen for any torch device, in whole-tensor operations: a block product, its top K, and a merge.

This is the default screen on a GPU; the tests run the same code on the CPU. Products are in float32 by default (with
TF32 off), or in fp16 or tf32, which tensor cores multiply several times faster. For fp16 and tf32, operands are rounded
first, and ε follows from the rounding error.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sae_geometry.kernels.error_bounds import SLACK, U32
from sae_geometry.kernels.screens.cpu import count_blocks, float32_epsilons, meter, shortlist_of, shortlist_width
from sae_geometry.kernels.screens.low_precision import Rounded, rounded, rounded_error
from sae_geometry.kernels.screens.products import full_precision, mm_product
from sae_geometry.kernels.types import Precision, Shortlist, Task

Lists = tuple[Tensor, Tensor]
_LOW_PRECISION_PAD = 6  # extra shortlist entries, since ε is larger than in float32


def screen_torch(task: Task, precision: Precision = "float32") -> tuple[Shortlist, Shortlist | None]:
    """Screen with torch products, whose scores err by at most γ_d ‖x‖‖y‖ (float32) or `rounded_error`."""
    within, bias = task.within, task.column_bias
    n, m, block, device = task.a.shape[0], task.others.shape[0], task.blocks, task.a.device
    x = rounded(task.a, precision)
    y = x if within else rounded(task.others, precision)
    width = listed_width(task.k, precision)
    rows = _no_lists(n, width, device)
    cols = _no_lists(m, width, device) if task.columns or within else None
    float_bias = None if bias is None else bias.to(device, torch.float32)
    tick = meter(task.progress, count_blocks(n, m, block, within))
    # Allocating and freeing each block would fragment the heap beyond any memory limit.
    scratch = None if x.values.is_cuda else torch.empty(block.rows * block.cols, device=device)
    product = partial(block_product, precision=precision, scratch=scratch)
    with full_precision():
        for i0 in range(0, n, block.rows):
            i1 = min(i0 + block.rows, n)
            for j0 in range(i0 if within else 0, m, block.cols):
                j1 = min(j0 + block.cols, m)
                scores = product(x.values[i0:i1], y.values[j0:j1])
                if x.scale != 1:
                    scores.mul_(1 / (x.scale * y.scale))  # Scaling by a power of two is exact.
                if task.absolute:
                    scores.abs_()
                if float_bias is not None:
                    scores.sub_(float_bias[j0:j1])
                if within and j0 < i1:
                    at_row = torch.arange(i0, i1, device=device)[:, None]
                    scores.masked_fill_(torch.arange(j0, j1, device=device)[None, :] <= at_row, -torch.inf)
                _offer(rows, slice(i0, i1), _top(scores, width, j0))
                if cols is not None:
                    _offer(cols, slice(j0, j1), _top(scores.T, width, i0))
                del scores  # Free the block before the next one is allocated.
                tick()
    if within:
        assert cols is not None
        _offer(rows, slice(0, n), cols)
        cols = None
    row_epsilon, col_epsilon = epsilons(task, precision, x, y)
    return _shortlist(rows, row_epsilon), None if cols is None else _shortlist(cols, col_epsilon)


def block_product(x: Tensor, y: Tensor, precision: Precision, scratch: Tensor | None = None) -> Tensor:
    """Compute x·yᵀ in float32 from operands of a given precision, on tensor cores if available.

    On other devices, the operands are multiplied in float32, using the scratch buffer if there is one.
    """
    if not x.is_cuda:
        a, b = x.to(torch.float32), y.to(torch.float32)
        return a @ b.T if scratch is None else mm_product(a, b, scratch)
    if precision == "fp16":
        return torch.mm(x, y.T, out_dtype=torch.float32)
    if precision == "tf32":
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # `full_precision` restores the setting.
        try:
            return x @ y.T
        finally:
            torch.backends.cuda.matmul.fp32_precision = "ieee"
    return x @ y.T


def listed_width(k: int, precision: Precision) -> int:
    """Return the length of the shortlist from which `decide` selects the k best."""
    return shortlist_width(k) + (0 if precision == "float32" else _LOW_PRECISION_PAD)


def epsilons(task: Task, precision: Precision, x: Rounded, y: Rounded) -> tuple[Tensor, Tensor]:
    """Return the error bound ε of a product of the rounded operands x and y, for every row and column."""
    if precision == "float32":
        return float32_epsilons(task)
    d, bias = task.a.shape[1], task.largest_bias
    row = rounded_error(x, y, task.b_norms, d)
    col = rounded_error(y, x, task.a_norms, d)
    if bias:
        row = (row + 2.1 * U32 * (x.length * y.length.max() + bias)) * SLACK
    return row, col


def _no_lists(n: int, width: int, device: torch.device) -> Lists:
    return (
        torch.full((n, width), -torch.inf, device=device),
        torch.full((n, width), -1, dtype=torch.int64, device=device),
    )


def _top(scores: Tensor, width: int, offset: int) -> Lists:
    values, indices = torch.topk(scores, min(width, scores.shape[1]), dim=1)
    return values, indices + offset


def _offer(lists: Lists, where: slice, more: Lists) -> None:
    """Merge more scores and indices into the lists in place."""
    values, indices = lists
    both = torch.cat([values[where], more[0]], dim=1)
    ids = torch.cat([indices[where], more[1]], dim=1)
    values[where], at = torch.topk(both, values.shape[1], dim=1)
    indices[where] = ids.gather(1, at)


def _shortlist(lists: Lists, epsilon: Tensor) -> Shortlist:
    scores, indices = lists
    return shortlist_of(scores, torch.where(scores == -torch.inf, -1, indices), epsilon)
