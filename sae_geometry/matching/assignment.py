"""What a one-to-one matching is, and what comes with an optimal one: plain frozen values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

OneToOne = Literal["mutual", "greedy", "optimal"]
Stopped = Literal["optimal", "max_gap", "time_budget", "interrupted", "stalled"]


@dataclass(frozen=True)
class Step:
    """One tick of progress.

    stage: "candidates", "greedy", "solve" or "certify"; share: of that stage done, in [0, 1]; gap: the relative
    optimality gap proven so far, inf until there is one (always, for mutual and greedy).
    """

    stage: str
    share: float
    gap: float = math.inf


Progress = Callable[[Step], None]


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far from optimal a matching can be, proven by prices rather than by trust in a solver.

    With w_ij = S_ij − t (t = `min_similarity`, 0 when there is none) and any u, v with u_i + v_j ≥ w_ij for every pair,
    no matching is worth more than Σ u_i + Σ v_j = `bound`. (Prices of a side whose members may stay unmatched are ≥ 0.)

    Attributes:
        value: Σ w_ij over the matched pairs.
        bound: an upper bound on the value of every matching, `slack` included.
        gap: max(bound − value, 0), absolute.
        relative_gap: gap / max(|value|, 1e-300).
        slack: the part of `bound` that pays for float64 rounding.
        certified: the gap is no more than rounding: ≤ 1e-12 · max(1, number of pairs that can be matched).
        rounds: restricted problems solved.
        edges_per_row: mean number of candidate pairs a row had at the end.
        sweeps: sweeps made, in multiples of one over all of C (parts count as their share of the pairs).
        seconds: wall time in all; solver_seconds: of it, in the restricted problems.
        stopped: why it ended.
        row_duals, column_duals: u float64 [n] and v float64 [m], to be checked by `verify`.
        min_similarity: t, or None when every row of the smaller side is matched.
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


def matched_sum(score: Float64[np.ndarray, " n"]) -> float:
    """Σ of the entries that are not nan, rounded once."""
    return math.fsum(score[~np.isnan(score)].tolist())
