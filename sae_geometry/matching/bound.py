"""Upper bound on every matching from dual prices, with float64 rounding included."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

_ULP = 2.0**-52


@dataclass(frozen=True)
class Terms:
    """Outside option of a row and of a column: the worth of leaving it unmatched, −inf where it must be matched.

    With n ≤ m rows must be matched and, if n < m, columns may be left at 0; with n > m the other way round. With a
    `min_similarity` t both may be left unmatched, worth t per pair not made; t is charged to the rows.
    """

    row_option: float
    column_option: float

    @classmethod
    def of(cls, n: int, m: int, min_similarity: float | None) -> Terms:
        """Return the options to stay unmatched, for n rows and m columns."""
        if min_similarity is not None:
            return cls(float(min_similarity), 0.0)
        return cls(0.0 if n > m else -math.inf, 0.0 if n < m else -math.inf)


@dataclass(frozen=True)
class Gap:
    """Optimality gap of one matching, as proven by prices.

    value: Σ S_ij over its pairs, or Σ (S_ij − t); bound: no matching is worth more; gap: bound − value; slack: the part
    of bound and gap that covers float64 rounding.
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
    score: Float64[np.ndarray, " n"], upper: Float64[np.ndarray, " n"], v: Float64[np.ndarray, " m"], terms: Terms
) -> Gap:
    """Compute the gap that prices prove for a matching.

    For any matching, Σ S_ij ≤ Σ_matched rows (r_i + v_j) with r_i = max_j(S_ij − v_j), so with r_i not below the row
    option and v_j not below the column option, Σ r_i + Σ v_j is at least the worth of any matching. Each r_i is a
    rounded difference, at most 2⁻⁵² |r_i| below the true maximum; the sums are exact until one last rounding.

    Args:
        score: float64 [n], the score of each row's pair, nan where it has none.
        upper: float64 [n], r_i or anything above.
        v: float64 [m], the columns' prices, at or above the column option.
    """
    if terms.column_option > -math.inf and v.size and float(v.min()) < terms.column_option:
        raise ValueError(f"a column that may stay unmatched has a price below {terms.column_option}: {float(v.min())}")
    upper = np.maximum(upper, terms.row_option)
    matched = score[~np.isnan(score)]
    option = terms.row_option if terms.row_option > -math.inf else 0.0
    above = math.fsum(np.concatenate([upper, v, -matched, np.full(score.size - matched.size, -option)]).tolist())
    value = math.fsum(np.concatenate([matched, np.full(matched.size, -option)]).tolist())
    bound = math.fsum(np.concatenate([upper, v, np.full(score.size, -option)]).tolist())
    slack = _ULP * (float(np.abs(upper).sum()) * (1 + 1e-9) + abs(value) + abs(bound) + abs(above))
    return Gap(value, bound + slack, max(above, 0.0) + slack, slack)
