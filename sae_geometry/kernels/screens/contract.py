"""The contract of a screen: a cheap pass over C = A·Bᵀ that shortlists, for every row and column, what might be best.

A screen never decides. It returns, for every row (and column), its K best *screened* scores with a proven bound ε on
their error, and a proven bound on every score it left out; `decide` does the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from sae_geometry.kernels.blocks import Blocks
from sae_geometry.kernels.types import Progress, Shortlist


def shortlist_of(scores: Tensor, indices: Tensor, epsilon: Tensor) -> Shortlist:
    """Return the K best screened scores per row, descending, all screened scores being within `epsilon`."""
    last = scores[:, -1].to(torch.float64)
    full = indices[:, -1] >= 0
    return Shortlist(scores, indices, epsilon, torch.where(full, last + epsilon, -torch.inf))


def meter(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return a function that counts finished blocks across threads and reports the share done, never backwards."""
    if progress is None:
        return lambda: None
    lock, done = threading.Lock(), count(1)

    def tick() -> None:
        with lock:
            progress(next(done) / total)

    return tick


def count_blocks(n: int, m: int, blocks: Blocks, within: bool) -> int:
    """Return the number of blocks of a sweep: all, or within one dictionary those that reach the diagonal or beyond."""
    return sum(-(-(m - (i0 if within else 0)) // blocks.cols) for i0 in range(0, n, blocks.rows))
