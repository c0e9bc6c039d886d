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
    """Return the precision of a screen's products; int8 products are exact and count as float32."""
    return "fp16" if screen.endswith("fp16") else "tf32" if screen.endswith("tf32") else "float32"


@dataclass(frozen=True)
class Best:
    """The k best partners of every row, by (score descending, index ascending).

    score: float64 [n, k], the ranking score; cosine: float64 [n, k], the signed inner product; index: int64 [n, k].
    Rows with fewer than k partners are padded with −inf, nan and −1.
    """

    score: Float64[Tensor, "n k"]
    cosine: Float64[Tensor, "n k"]
    index: Int64[Tensor, "n k"]


@dataclass(frozen=True)
class Scoring:
    """Rule that converts exact inner products to scores; `exclude_self` excludes self-pairs."""

    absolute: bool = False
    column_bias: Tensor | None = None
    exclude_self: bool = False

    def __call__(self, cosine: Tensor, cols: Tensor) -> Tensor:
        """Return the float64 scores of pairs, given their signed cosines and column indices."""
        score = cosine.abs() if self.absolute else cosine
        return score if self.column_bias is None else score - self.column_bias[cols]


@dataclass(frozen=True)
class SweepReport:
    """Report of a sweep: how it was run, why its answer can be trusted, and what it cost.

    epsilon: the largest error bound of a row's screened scores. rows_redone, cols_redone: numbers of rows and columns
    that were swept again, because their shortlists could not certify them. memory: the memory limit in bytes.
    audit: a sentence on what the audit checked; None if there was none.
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
    """The k best partners of every row of A in B, and of every row of B in A (None if not requested, or within A)."""

    rows: Best
    cols: Best | None
    report: SweepReport


@dataclass(frozen=True)
class Shortlist:
    """Candidates for the best of each row, with a bound on all others.

    scores: float32 [n, K] screened scores, in any order; indices: int64 [n, K], −1 (score −inf) for none.
    epsilon: float64 [n], upper bound on |screened − exact| over the row's listed scores.
    beyond: float64 [n], upper bound on the exact score of every unlisted column; −inf if all are listed.
    """

    scores: Float32[Tensor, "n width"]
    indices: Int64[Tensor, "n width"]
    epsilon: Float64[Tensor, " n"]
    beyond: Float64[Tensor, " n"]


@dataclass(frozen=True)
class Task:
    """Input of a screen, which shortlists candidates for the `k` best partners of A's rows and, if `columns`, of B's.

    If `b` is None, the sweep is within A: self is excluded by index, and only one triangle of blocks is computed, since
    each block has candidates for its rows and its columns. The score is ⟨a, b⟩, or |⟨a, b⟩| if `absolute`, minus
    `column_bias[j]` if given. `a_norms` and `b_norms` are the Euclidean norms of the rows of A and `others`. The sweep
    takes at most `memory` bytes, including its results; `memory_asked` is False if this is the device's default.
    Blocks are planned when first needed, since a sweep that runs elsewhere never needs them.
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
        """Return the size of the blocks; raise CeilingError if none fits `memory`."""
        return self.plan(self)

    @property
    def others(self) -> Tensor:
        """Return the candidate rows: B, or A itself if `b` is None."""
        return self.a if self.b is None else self.b

    @property
    def largest_bias(self) -> float:
        """Return the largest absolute bias; 0 if there is no bias."""
        return 0.0 if self.column_bias is None else float(self.column_bias.abs().max())

    @property
    def within(self) -> bool:
        """Return whether partners are searched within A itself."""
        return self.b is None


Screen = Callable[[Task], tuple[Shortlist, Shortlist | None]]
"""Function that returns the shortlists of a task's rows and, if requested between two dictionaries, of its columns."""

Runner = Callable[[Task, ScreenName], Sweep | None]
"""Function that runs a whole sweep elsewhere, bit-identically, or returns None if this process should run the sweep.

The task's operands have been checked; its threads and memory limit are those of this process."""
