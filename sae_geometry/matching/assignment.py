"""Immutable results of a one-to-one matching: the assignment, its certificate and its progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from sae_geometry.matching.defaults import OneToOne

Stopped = Literal["optimal", "max_gap", "time_budget", "interrupted"]


@dataclass(frozen=True)
class Step:
    """Progress of a matching.

    stage: "candidates", "greedy", "solve" or "certify"; share: the completed share of that stage, in [0, 1]; gap: the
    relative optimality gap proven so far; inf until one is proven, and always for mutual and greedy.
    """

    stage: str
    share: float
    gap: float = math.inf

    @property
    def label(self) -> str:
        """Return the stage and, once proven, the gap, such as "solve · gap 3.1e-04"."""
        return self.stage if math.isinf(self.gap) else f"{self.stage} · gap {self.gap:.1e}"


Progress = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Bound on how far a matching is from optimal, proven by dual prices rather than by the solver.

    For prices u, v with u_i + v_j ≥ S_ij for every pair, and not negative on a side whose members may stay unmatched,
    no matching is worth more than Σ u_i + Σ v_j. With `min_similarity` t, a matching is worth Σ (S_ij − t) over its
    pairs, u_i ≥ t, v_j ≥ 0, and the bound is Σ (u_i − t) + Σ v_j.

    Attributes:
        value: the worth of the matching: Σ S_ij, or Σ (S_ij − t).
        bound: upper bound on the worth of every matching, `slack` included.
        gap: bound − value, the most that another matching could gain.
        relative_gap: gap / max(|value|, 1).
        slack: the part of `bound` that covers float64 rounding.
        certified: whether the gap is at most 1e-12 per possible pair, which is rounding alone.
        rounds: number of restricted problems solved.
        edges_per_row: listed pairs per row of the side that must be matched, after the last round.
        sweeps: pairs swept, in multiples of all n·m.
        seconds: total wall time; solver_seconds: the part spent in restricted problems (always on the CPU).
        stopped: "optimal", or the reason for stopping early.
        row_duals, column_duals: u float64 [n] and v float64 [m]; `verify` checks them.
        min_similarity: t; None for a complete matching of min(n, m) pairs.
    """

    value: float
    bound: float
    gap: float
    relative_gap: float
    slack: float
    certified: bool
    rounds: int
    edges_per_row: float
    sweeps: float
    seconds: float
    solver_seconds: float
    stopped: Stopped
    row_duals: Float64[np.ndarray, " n"] = field(repr=False)
    column_duals: Float64[np.ndarray, " m"] = field(repr=False)
    min_similarity: float | None = None


@dataclass(frozen=True, eq=False)
class Assignment:
    """A one-to-one matching of the rows of A with the rows of B.

    Attributes:
        partner: int64 [n], the row of B matched to each row of A, −1 for none.
        cosine: float64 [n], the signed canonical score of each matched pair, nan for none.
        method: "mutual", "greedy" or "optimal".
        absolute: whether pairs were ranked by |cosine|.
        total: sum of the ranking scores (cosine or |cosine|), rounded once.
        certificate: the optimality bound; "optimal" only.
    """

    partner: Int64[np.ndarray, " n"] = field(repr=False)
    cosine: Float64[np.ndarray, " n"] = field(repr=False)
    method: OneToOne
    absolute: bool
    n_matched: int
    total: float
    certificate: Certificate | None = None

    @property
    def score(self) -> Float64[np.ndarray, " n"]:
        """Return the ranking score of each row, float64 [n]: the cosine or its absolute value."""
        return np.abs(self.cosine) if self.absolute else self.cosine

    @property
    def interrupted(self) -> bool:
        """Return whether Ctrl-C ended the matching before optimality was proven."""
        return self.certificate is not None and self.certificate.stopped == "interrupted"

    def completed(self) -> Assignment:
        """Return this matching; raise KeyboardInterrupt if Ctrl-C ended it before it was proven optimal."""
        if self.interrupted:
            raise KeyboardInterrupt
        return self

    def reverse(self, m: int) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
        """Return the row of A matched to each of B's m rows, −1 for none, and the signed score, nan for none."""
        back = inverse(self.partner, m)
        return back, np.where(back >= 0, self.cosine[back], np.nan)


def inverse(partner: Int64[np.ndarray, " n"], m: int) -> Int64[np.ndarray, " m"]:
    """Return the row of A matched to each of B's m rows, −1 for none."""
    back = np.full(m, -1, dtype=np.int64)
    rows = np.flatnonzero(partner >= 0)
    back[partner[rows]] = rows
    return back
