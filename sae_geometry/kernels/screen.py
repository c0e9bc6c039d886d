"""Screens: cheap passes over C = A·Bᵀ that shortlist, for every row and column, the few scores that might be best.

A screen never decides. It returns, for every row (and column), its K best *screened* scores, and the sweep knows a
bound ε on |screened − exact|; `decide` does the rest. Two screens share one contract:

* `screen_cpu`: a float32 product by blocks in torch, scanned while it is in cache by compiled loops, one thread a
  stripe of rows;
* `screen_torch`: the same blocks with torch operations alone, for CUDA, MPS and the CPU. It is what a GPU runs, and
  the tests run it on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[float], None]

BLOCK_ROWS = 1024
BLOCK_COLS = 2048
TORCH_BLOCK_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Shortlist:
    """The K best screened scores of each row, descending; −inf and −1 where there are fewer than K columns.

    scores: float32 [n, K]; indices: int64 [n, K].
    """

    scores: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Task:
    """What a screen is asked: shortlists of length `width` for A's rows and, if `columns`, for B's.

    `b is None` means within A: self is excluded by index, and only one triangle of blocks is computed, each block
    serving its rows and its columns. The score is ⟨a, b⟩, |⟨a, b⟩| if `absolute`, minus `column_bias[j]` if given.
    """

    a: Tensor
    b: Tensor | None
    width: int
    columns: bool
    absolute: bool = False
    column_bias: Tensor | None = None
    threads: int = 1
    progress: Progress | None = None

    @property
    def others(self) -> Tensor:
        """The rows scored against: B, or A itself."""
        return self.a if self.b is None else self.b


class Screen(Protocol):
    """Anything that shortlists."""

    def __call__(self, task: Task) -> tuple[Shortlist, Shortlist | None]: ...


def screen_cpu(task: Task) -> tuple[Shortlist, Shortlist | None]:
    """The CPU's screen. Rows belong to the thread that computes their stripe; column lists are merged at the end."""
    from sae_geometry.kernels import cpu_loops

    a, b, within = task.a, task.others, task.b is None
    n, m = a.shape[0], b.shape[0]
    threads = max(1, min(task.threads, -(-n // 256)))
    stripe = int(min(BLOCK_ROWS, max(256, -(-n // (4 * threads)))))
    starts = list(range(0, n, stripe))
    rows = _empty_lists(n, task.width)
    cols = [_empty_lists(m, task.width) if task.columns or within else None for _ in range(threads)]
    bias = None if task.column_bias is None else task.column_bias.to(torch.float32)
    meter = _Meter(task.progress, _blocks_in_all(n, m, stripe, within))
    stop = threading.Event()

    def work(worker: int) -> None:
        torch.set_num_threads(1)
        mine = cols[worker]
        buffer = torch.empty(stripe * BLOCK_COLS, dtype=torch.float32)
        peak = np.empty(BLOCK_COLS, dtype=np.float32)
        while not stop.is_set():
            try:
                i0 = starts.pop(0)
            except IndexError:
                return
            i1 = min(i0 + stripe, n)
            for j0 in range(i0 if within else 0, m, BLOCK_COLS):
                j1 = min(j0 + BLOCK_COLS, m)
                scores = buffer[: (i1 - i0) * (j1 - j0)].view(i1 - i0, j1 - j0)
                torch.mm(a[i0:i1], b[j0:j1].T, out=scores)
                if task.absolute:
                    scores.abs_()
                if bias is not None:
                    scores.sub_(bias[j0:j1])
                block = scores.numpy()
                if within:
                    # Of the stripe's own triangle, the strictly upper part serves rows and columns alike.
                    _blank_lower(block, i0, j0)
                cpu_loops.scan_rows(block, j0, rows[0][i0:i1], rows[1][i0:i1])
                if mine is not None:
                    cpu_loops.scan_cols(block, i0, mine[0][j0:j1], mine[1][j0:j1], peak)
                meter.tick()
                if stop.is_set():
                    return

    before = torch.get_num_threads()
    try:
        if threads == 1:
            work(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                futures = [pool.submit(work, w) for w in range(threads)]
                try:
                    for future in futures:
                        future.result()
                except BaseException:
                    stop.set()
                    raise
    finally:
        torch.set_num_threads(before)

    gathered = [c for c in cols if c is not None]
    for more in gathered[1:]:
        cpu_loops.merge(*gathered[0], *more)
    if within:
        cpu_loops.merge(*rows, *gathered[0])
        return _shortlist(*rows), None
    return _shortlist(*rows), _shortlist(*gathered[0]) if task.columns else None


def screen_torch(task: Task) -> tuple[Shortlist, Shortlist | None]:
    """The screen of any torch device, in whole-tensor operations: a block product, top-K of it, a merge."""
    a, b, within = task.a, task.others, task.b is None
    n, m, width = a.shape[0], b.shape[0], task.width
    stripe = max(1, min(n, 8192, TORCH_BLOCK_ELEMENTS // min(m, 16384)))
    rows = _no_lists(n, width, a.device)
    cols = _no_lists(m, width, a.device) if task.columns or within else None
    bias = None if task.column_bias is None else task.column_bias.to(a.device, torch.float32)
    meter = _Meter(task.progress, _blocks_in_all(n, m, stripe, within, 16384))
    for i0 in range(0, n, stripe):
        i1 = min(i0 + stripe, n)
        for j0 in range(i0 if within else 0, m, 16384):
            j1 = min(j0 + 16384, m)
            scores = a[i0:i1] @ b[j0:j1].T
            if task.absolute:
                scores = scores.abs()
            if bias is not None:
                scores = scores - bias[j0:j1]
            if within:
                lower = torch.arange(j0, j1, device=a.device)[None, :] <= torch.arange(i0, i1, device=a.device)[:, None]
                scores = scores.masked_fill(lower, -torch.inf)
            rows = _with_lists(rows, slice(i0, i1), _top(scores, width, j0))
            if cols is not None:
                cols = _with_lists(cols, slice(j0, j1), _top(scores.T, width, i0))
            meter.tick()
    if within:
        assert cols is not None
        rows = _with_lists(rows, slice(0, n), cols)
        return _valid(*rows), None
    return _valid(*rows), None if cols is None else _valid(*cols)


Lists = tuple[Tensor, Tensor]


def _no_lists(n: int, width: int, device: torch.device) -> Lists:
    return (
        torch.full((n, width), -torch.inf, device=device),
        torch.full((n, width), -1, dtype=torch.int64, device=device),
    )


def _top(scores: Tensor, width: int, offset: int) -> Lists:
    values, indices = torch.topk(scores, min(width, scores.shape[1]), dim=1)
    return values, indices + offset


def _with_lists(lists: Lists, where: slice, more: Lists) -> Lists:
    values, indices = lists
    both = torch.cat([values[where], more[0]], dim=1)
    ids = torch.cat([indices[where], more[1]], dim=1)
    top, at = torch.topk(both, values.shape[1], dim=1)
    values[where], indices[where] = top, ids.gather(1, at)
    return values, indices


def _valid(scores: Tensor, indices: Tensor) -> Shortlist:
    return Shortlist(scores, torch.where(scores == -torch.inf, -1, indices))


def _empty_lists(n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((n, width), -np.inf, dtype=np.float32), np.full((n, width), -1, dtype=np.int32)


def _shortlist(scores: np.ndarray, indices: np.ndarray) -> Shortlist:
    return Shortlist(torch.from_numpy(scores), torch.from_numpy(indices.astype(np.int64)))


def _blank_lower(block: np.ndarray, i0: int, j0: int) -> None:
    """Set the scores at or below the diagonal of C (column ≤ row) to −inf in this block."""
    for i in range(max(0, j0 - i0), block.shape[0]):
        block[i, : i0 + i - j0 + 1] = -np.inf


def _blocks_in_all(n: int, m: int, stripe: int, within: bool, cols: int = BLOCK_COLS) -> int:
    return sum(-(-(m - (i0 if within else 0)) // cols) for i0 in range(0, n, stripe))


class _Meter:
    """Counts finished blocks across threads and reports the share done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def tick(self) -> None:
        if self._progress is None:
            return
        with self._lock:
            self._done += 1
            self._progress(self._done / self._total)
