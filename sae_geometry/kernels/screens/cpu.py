"""CPU screen: block products, which compiled loops scan while they are in cache, one row block per thread.

A `BlockScores` computes a block of scores: float32 here, int8 in `int8.py`. Each row belongs to the thread that
computes its row block; every thread has its own lists of columns, which are merged at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from torch import Tensor

from sae_geometry.kernels.blocks import TIGHT, Blocks
from sae_geometry.kernels.error_bounds import float32_error
from sae_geometry.kernels.loops.threads import in_parallel
from sae_geometry.kernels.screens.products import cpu_product, full_precision, mm_product
from sae_geometry.kernels.types import Progress, Shortlist, Task

Lists = tuple[np.ndarray, np.ndarray]  # float32 [n, K] descending, int32 [n, K]


BlockScores = Callable[[int, int, int, int, Tensor], Tensor]
"""Function of (i0, i1, j0, j1, scratch of a block's size) that returns a block's screened scores, a contiguous float32
[i1 − i0, j1 − j0] that the caller may overwrite."""


def screen_cpu(task: Task) -> tuple[Shortlist, Shortlist | None]:
    """Screen with float32 products, whose scores are within γ_d ‖x‖‖y‖ of the exact scores."""
    a, b = task.a, task.others
    bias = None if task.column_bias is None else task.column_bias.to(torch.float32)
    product = mm_product if task.memory < TIGHT else cpu_product()[0]

    def block_scores(i0: int, i1: int, j0: int, j1: int, scratch: Tensor) -> Tensor:
        scores = product(a[i0:i1], b[j0:j1], scratch)
        if task.absolute:
            scores.abs_()
        if bias is not None:
            scores.sub_(bias[j0:j1])
        return scores

    rows, cols = scan(task, block_scores, shortlist_width(task.k))
    row_epsilon, col_epsilon = float32_epsilons(task)
    return listed(rows, row_epsilon), None if cols is None else listed(cols, col_epsilon)


def shortlist_width(k: int) -> int:
    """Return the length of a float32 shortlist, which exceeds k so that near-ties rarely need another sweep."""
    return k + 2 + k // 8


def float32_epsilons(task: Task) -> tuple[Tensor, Tensor]:
    """Return the error bound ε of a float32 product, for every row and every column."""
    d, a, b, bias = task.a.shape[1], task.a_norms, task.b_norms, task.largest_bias
    return float32_error(a, float(b.max()), d, bias), float32_error(b, float(a.max()), d, bias)


def shortlist_of(scores: Tensor, indices: Tensor, epsilon: Tensor) -> Shortlist:
    """Build the shortlist of the K best screened scores per row, in descending order, with errors up to `epsilon`."""
    last = scores[:, -1].to(torch.float64)
    full = indices[:, -1] >= 0
    return Shortlist(scores, indices, epsilon, torch.where(full, last + epsilon, -torch.inf))


def listed(lists: Lists, epsilon: Tensor) -> Shortlist:
    """Convert the arrays of the compiled loops to a `Shortlist`."""
    return shortlist_of(torch.from_numpy(lists[0]), torch.from_numpy(lists[1].astype(np.int64)), epsilon)


def scan(task: Task, block_scores: BlockScores, width: int) -> tuple[Lists, Lists | None]:
    """Return the `width` best screened scores of every row, and of every column if the task requires them."""
    from sae_geometry.kernels.loops import cpu as cpu_loops

    n, m, block = task.a.shape[0], task.others.shape[0], task.blocks
    rows = _empty_lists(n, width)
    cols: list[Lists] = []  # one set of lists per thread
    tick = meter(task.progress, count_blocks(n, m, block, task.within))

    def worker(stop: threading.Event) -> Callable[[int], None]:
        scratch = torch.empty(block.rows * block.cols, dtype=torch.float32)
        floor = np.empty(block.cols, dtype=np.float32)
        mine = _empty_lists(m, width) if task.columns or task.within else None
        if mine is not None:
            cols.append(mine)

        def row_block(i0: int) -> None:
            i1 = min(i0 + block.rows, n)
            for j0 in range(i0 if task.within else 0, m, block.cols):
                j1 = min(j0 + block.cols, m)
                scores = block_scores(i0, i1, j0, j1, scratch).numpy()
                if task.within and j0 < i1:
                    # On the diagonal, the strictly upper triangle serves both rows and columns.
                    cpu_loops.blank_lower(scores, i0, j0)
                cpu_loops.scan_rows(scores, j0, rows[0][i0:i1], rows[1][i0:i1])
                if mine is not None:
                    cpu_loops.scan_cols(scores, i0, mine[0][j0:j1], mine[1][j0:j1], floor)
                tick()
                if stop.is_set():
                    return

        return row_block

    with full_precision():
        in_parallel(worker, range(0, n, block.rows), task.threads)
    for more in cols[1:]:
        cpu_loops.merge(*cols[0], *more)
    if task.within:
        cpu_loops.merge(*rows, *cols[0])
        return rows, None
    return rows, cols[0] if cols else None


def _empty_lists(n: int, width: int) -> Lists:
    return np.full((n, width), -np.inf, dtype=np.float32), np.full((n, width), -1, dtype=np.int32)


def meter(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return a function that counts finished blocks across threads and reports the share done in increasing order."""
    if progress is None:
        return lambda: None
    lock, done = threading.Lock(), count(1)

    def tick() -> None:
        with lock:
            progress(next(done) / total)

    return tick


def count_blocks(n: int, m: int, blocks: Blocks, within: bool) -> int:
    """Return the number of blocks of a sweep, which skips blocks below the diagonal within one dictionary."""
    return sum(-(-(m - (i0 if within else 0)) // blocks.cols) for i0 in range(0, n, blocks.rows))
