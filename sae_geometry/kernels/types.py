"""The types that sweeps, screens and their callers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from sae_geometry.kernels.blocks import Blocks

ScreenName = Literal["auto", "cpu", "int8", "torch", "fp16", "tf32", "triton", "triton-fp16", "triton-tf32"]
Precision = Literal["float32", "fp16", "tf32"]
Progress = Callable[[float], None]


def precision_of(screen: ScreenName) -> Precision:
    """Return the precision of a screen's products; those of int8, which are exact, count as float32."""
    return "fp16" if screen.endswith("fp16") else "tf32" if screen.endswith("tf32") else "float32"


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
    """Rule by which the exact score follows from the exact inner product; `exclude_self` excludes self-pairs."""

    absolute: bool = False
    column_bias: Tensor | None = None
    exclude_self: bool = False

    def __call__(self, cosine: Tensor, cols: Tensor) -> Tensor:
        """Return float64 scores of pairs with these signed cosines and these column indices."""
        score = cosine.abs() if self.absolute else cosine
        return score if self.column_bias is None else score - self.column_bias[cols]


@dataclass(frozen=True)
class SweepReport:
    """Report of a sweep: how it was run, why its answer can be trusted, and what it cost.

    epsilon: the largest bound on the error of a score that decisions started from. rows_redone, cols_redone: how many
    could not be certified from their shortlists and were swept again. memory: the bytes it was to stay below.
    audit: what was checked afterwards, if it was.
    """

    screen: str
    why: str
    device: str
    n_rows: int
    n_cols: int
    d_in: int
    k: int
    epsilon: float
    rows_redone: int
    cols_redone: int
    seconds: float
    blocks: tuple[int, int] = (0, 0)
    threads: int = 1
    memory: int = 0
    audit: str | None = None


@dataclass(frozen=True)
class Sweep:
    """The k best of every row of A among B, and of every row of B among A (None if not asked, or within A)."""

    rows: Best
    cols: Best | None
    report: SweepReport


@dataclass(frozen=True)
class Shortlist:
    """Candidates for the best of each row, with a bound on all others.

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
    """Task of a screen: shortlists fit for the `k` best of A's rows and, if `columns`, of B's.

    `b is None` means within A: self is excluded by index, and only one triangle of blocks is computed, each block
    serving its rows and its columns. The score is ⟨a, b⟩, |⟨a, b⟩| if `absolute`, minus `column_bias[j]` if given.
    `a_norms` and `b_norms` are the Euclidean norms of A's rows and of the rows scored against. All of it takes at most
    `memory` bytes, results included; `memory_asked` says whether these were set, or are the device's default. Blocks
    are planned when first needed: a sweep that runs elsewhere never needs them.
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
        """Return the size of the blocks; raise CeilingError where none fits `memory`."""
        return self.plan(self)

    @property
    def others(self) -> Tensor:
        """Return the rows scored against: B, or A itself."""
        return self.a if self.b is None else self.b

    @property
    def largest_bias(self) -> float:
        """Return the largest absolute bias, 0 without one."""
        return 0.0 if self.column_bias is None else float(self.column_bias.abs().max())

    @property
    def within(self) -> bool:
        """Return whether the partners are sought in A itself."""
        return self.b is None


Screen = Callable[[Task], tuple[Shortlist, Shortlist | None]]
"""Anything that shortlists: rows, and columns if the task asks for them between two dictionaries."""

Runner = Callable[[Task, ScreenName], Sweep | None]
"""Computes a whole sweep elsewhere, bit-identically; returns None where this process should.

The task's operands have been checked. Its threads and memory are what this process would use."""
