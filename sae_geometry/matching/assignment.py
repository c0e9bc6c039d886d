"""What a one-to-one matching is, and what comes with an optimal one: plain frozen values."""

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
    """One tick of progress.

    stage: "candidates", "greedy", "solve" or "certify"; share: of that stage done, in [0, 1]; gap: the relative
    optimality gap proven so far, inf until there is one (always, for mutual and greedy).
    """

    stage: str
    share: float
    gap: float = math.inf

    @property
    def label(self) -> str:
        """The stage, and the gap once there is one: "solve · gap 3.1e-04"."""
        return self.stage if math.isinf(self.gap) else f"{self.stage} · gap {self.gap:.1e}"


Progress = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far from optimal a matching can be, proven by prices rather than by trust in a solver.

    For prices u, v with u_i + v_j ≥ S_ij for every pair, and not negative on a side whose members may stay unmatched,
    no matching is worth more than Σ u_i + Σ v_j. With `min_similarity` t a matching is worth Σ (S_ij − t) over its
    pairs, u_i ≥ t, v_j ≥ 0, and the bound is Σ (u_i − t) + Σ v_j.

    Attributes:
        value: the worth of the matching: Σ S_ij, or Σ (S_ij − t).
        bound: no matching is worth more; `slack` is included.
        gap: bound − value: how much better another matching could be.
        relative_gap: gap / max(|value|, 1).
        slack: the part of `bound` that pays for float64 rounding.
        certified: the gap is nothing but rounding: at most 1e-12 for each pair that can be made.
        rounds: restricted problems solved.
        edges_per_row: listed pairs per row of the side that must be matched, at the end.
        sweeps: pairs swept, in multiples of all n·m.
        seconds: wall time in all; solver_seconds: of it, in the restricted problems (always on the CPU).
        stopped: "optimal", or what ended it early.
        row_duals, column_duals: u float64 [n] and v float64 [m], to be checked by `verify`.
        min_similarity: t, or None when min(n, m) pairs are made.
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
        absolute: pairs were ranked by |cosine|.
        n_matched: matched pairs.
        total: the sum of the scores that were ranked by (cosine, or |cosine|), rounded once.
        certificate: for "optimal", how far from optimal it can be.
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
        """float64 [n]: what the pairs were ranked by, the cosine or its absolute value."""
        return np.abs(self.cosine) if self.absolute else self.cosine

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the matching before it was proven."""
        return self.certificate is not None and self.certificate.stopped == "interrupted"

    def reverse(self, m: int) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
        """The row of A matched to each of B's m rows, −1 for none, and the signed score, nan for none."""
        back = inverse(self.partner, m)
        return back, np.where(back >= 0, self.cosine[back], np.nan)


def inverse(partner: Int64[np.ndarray, " n"], m: int) -> Int64[np.ndarray, " m"]:
    """The row of A matched to each of B's m rows, −1 for none."""
    back = np.full(m, -1, dtype=np.int64)
    rows = np.flatnonzero(partner >= 0)
    back[partner[rows]] = rows
    return back


def matched_sum(score: Float64[np.ndarray, " n"]) -> float:
    """Σ of the entries that are not nan, rounded once."""
    return math.fsum(score[~np.isnan(score)].tolist())
