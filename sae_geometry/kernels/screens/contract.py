"""The contract of a screen: a cheap pass over C = A·Bᵀ that shortlists, for every row and column, what might be best.

A screen never decides. It returns, for every row (and column), its K best *screened* scores with a proven bound ε on
their error, and a proven bound on every score it left out; `decide` does the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from sae_geometry.kernels.blocks import Blocks

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Shortlist:
    """What may be among the best of each row, and what is known of the rest.

    scores: float32 [n, K] screened scores, in any order; indices: int64 [n, K], −1 (score −inf) where there is none.
    epsilon: float64 [n], bounds |screened − exact| of every listed score of the row.
    beyond: float64 [n], bounds from above the exact score of every column that is not listed; −inf if all are.
    """

    scores: Float32[Tensor, "n width"]
    indices: Int64[Tensor, "n width"]
    epsilon: Float64[Tensor, " n"]
    beyond: Float64[Tensor, " n"]


@dataclass(frozen=True)
class Task:
    """What a screen is asked: shortlists fit for the `k` best of A's rows and, if `columns`, of B's.

    `b is None` means within A: self is excluded by index, and only one triangle of blocks is computed, each block
    serving its rows and its columns. The score is ⟨a, b⟩, |⟨a, b⟩| if `absolute`, minus `column_bias[j]` if given.
    `a_norms` and `b_norms` are the Euclidean norms of A's rows and of the rows scored against. All of it is to take at
    most `memory` bytes, results included; `memory_asked` says whether somebody set them, or they are the device's
    default. The blocks are planned when first asked for: whoever does the sweep elsewhere never asks.
    """

    a: Tensor
    b: Tensor | None
    a_norms: Float64[Tensor, " n"]
    b_norms: Float64[Tensor, " m"]
    k: int
    columns: bool
    absolute: bool
    column_bias: Tensor | None
    threads: int
    memory: int
    memory_asked: bool
    plan: Callable[[Task], Blocks]
    progress: Progress | None = None

    @cached_property
    def blocks(self) -> Blocks:
        """How large the blocks are.

        Raises:
            CeilingError: no block fits `memory`.
        """
        return self.plan(self)

    @property
    def others(self) -> Tensor:
        """The rows scored against: B, or A itself."""
        return self.a if self.b is None else self.b

    @property
    def largest_bias(self) -> float:
        """The largest absolute bias, 0 without one."""
        return 0.0 if self.column_bias is None else float(self.column_bias.abs().max())

    @property
    def within(self) -> bool:
        """Whether the partners are looked for in A itself."""
        return self.b is None


Screen = Callable[[Task], tuple[Shortlist, Shortlist | None]]
"""Anything that shortlists: rows, and columns if the task asks for them between two dictionaries."""


def shortlist_of(scores: Tensor, indices: Tensor, epsilon: Tensor) -> Shortlist:
    """The shortlist of K best screened scores per row, descending, all screened scores being within `epsilon`."""
    last = scores[:, -1].to(torch.float64)
    full = indices[:, -1] >= 0
    return Shortlist(scores, indices, epsilon, torch.where(full, last + epsilon, -torch.inf))


class Meter:
    """Counts finished blocks across threads and reports the share done, at most once a block, never backwards."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()

    def tick(self) -> None:
        """One more block is done."""
        if self._progress is None:
            return
        with self._lock:
            self._done += 1
            self._progress(self._done / self._total)


def count_blocks(n: int, m: int, blocks: Blocks, within: bool) -> int:
    """How many blocks a sweep computes: all, or within one dictionary those that reach the diagonal or beyond it."""
    return sum(-(-(m - (i0 if within else 0)) // blocks.cols) for i0 in range(0, n, blocks.rows))
