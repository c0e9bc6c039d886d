"""Upper bounds from dual prices: on the total of every matching, float64 rounding included, and on unlisted pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

_ULP = 2.0**-52


def outside_options(n: int, m: int, min_similarity: float | None) -> tuple[float, float]:
    """Return the worth of an unmatched row and of an unmatched column; −inf for a side that must be matched.

    With n ≤ m, rows must be matched and, if n < m, columns may stay unmatched at a worth of 0; with n > m, the roles
    are reversed. With `min_similarity` t, both may stay unmatched, and a pair not made is worth t, credited to the row.
    """
    if min_similarity is not None:
        return float(min_similarity), 0.0
    return 0.0 if n > m else -math.inf, 0.0 if n < m else -math.inf


@dataclass(frozen=True)
class Gap:
    """Optimality gap of one matching, as proven by dual prices.

    value: Σ S_ij over the matched pairs, or Σ (S_ij − t); bound: upper bound on the value of any matching; gap: bound −
    value; slack: the part of bound and gap that covers float64 rounding.
    """

    value: float
    bound: float
    gap: float
    slack: float

    @property
    def relative(self) -> float:
        """Return gap / max(|value|, 1)."""
        return self.gap / max(abs(self.value), 1.0)


def gap_of(
    score: Float64[np.ndarray, " n"],
    upper: Float64[np.ndarray, " n"],
    v: Float64[np.ndarray, " m"],
    options: tuple[float, float],
) -> Gap:
    """Compute an upper bound on the gap of a matching from dual prices.

    Let r_i = max_j(S_ij − v_j). Every matching satisfies Σ S_ij ≤ Σ_matched rows (r_i + v_j). If no r_i is below the
    worth of an unmatched row and no v_j below the worth of an unmatched column, Σ r_i + Σ v_j bounds the total of every
    matching. Each r_i is a rounded difference, at most 2⁻⁵² |r_i| below the true maximum; the sums are exact except for
    one final rounding.

    Args:
        score: float64 [n], the score of each row's pair; nan if the row is unmatched.
        upper: float64 [n], r_i or an upper bound on it.
        v: float64 [m], the columns' prices, none below the worth of an unmatched column.
        options: see `outside_options`.
    """
    row_option, column_option = options
    if v.size and float(v.min()) < column_option:
        raise ValueError(f"column prices must be at least {column_option}; got {float(v.min())}")
    upper = np.maximum(upper, row_option)
    matched = score[~np.isnan(score)]
    option = row_option if row_option > -math.inf else 0.0
    above = math.fsum(np.concatenate([upper, v, -matched, np.full(score.size - matched.size, -option)]).tolist())
    value = math.fsum(np.concatenate([matched, np.full(matched.size, -option)]).tolist())
    bound = math.fsum(np.concatenate([upper, v, np.full(score.size, -option)]).tolist())
    slack = _ULP * (float(np.abs(upper).sum()) * (1 + 1e-9) + abs(value) + abs(bound) + abs(above))
    return Gap(value, bound + slack, max(above, 0.0) + slack, slack)


class Unlisted:
    """Upper bound per row on S_ij − v_j over its unlisted columns j, valid as prices change.

    A sweep at prices v that returns a row's k best bounds the rest by the k-th. Rising prices preserve that bound;
    a price below the highest at which any row was swept (`peak`) loosens it by the difference. Every method keeps
    the bounds valid at each step, so an interruption is harmless.
    """

    def __init__(self, kth: Float64[np.ndarray, " n"], v: Float64[np.ndarray, " m"]) -> None:
        self.ceiling = kth.copy()
        self.peak = v.copy()

    def at(self, v: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " n"]:
        """Return the bounds at prices v."""
        return self.ceiling + max(0.0, float((self.peak - v).max()))

    def fallen(self, v: Float64[np.ndarray, " m"]) -> Int64[np.ndarray, " some"]:
        """Return the columns whose price is below its peak, against which all rows must be swept again."""
        return np.flatnonzero(v < self.peak)

    def rows_swept(
        self, rows: Int64[np.ndarray, " some"], kth: Float64[np.ndarray, " some"], v: Float64[np.ndarray, " m"]
    ) -> None:
        """Record that these rows were swept against every column at prices v."""
        self.peak = np.maximum(self.peak, v)
        self.ceiling[rows] = kth

    def columns_swept(
        self, cols: Int64[np.ndarray, " some"], kth: Float64[np.ndarray, " n"], v: Float64[np.ndarray, " m"]
    ) -> None:
        """Record that every row was swept against these columns at prices v."""
        self.ceiling = np.maximum(self.ceiling, kth)
        self.peak[cols] = v[cols]
