"""Upper bounds on unlisted pairs, so that most rows need no second sweep."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64


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
        """Return the columns whose price is below their peak: all rows must be swept against them again."""
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
