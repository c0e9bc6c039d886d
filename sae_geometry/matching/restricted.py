"""Assignment problem restricted to a list of pairs, solved exactly with prices and re-solved as the list grows.

Rows are matched to columns; members of a side may stay unmatched (its outside option is finite) or may not (−inf). The
solver runs on the CPU, in slices short enough to check the clock and Ctrl-C in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

_SLICE = 50_000_000  # pairs examined between two checks of the clock (a few tenths of a second)
_BIDS_PER_ROW = 20


class Restricted:
    """Candidate pairs, prices and a matching, carried from one solve to the next.

    Attributes:
        mate: int64 [n], the column of every row, −1 for none; owner: int64 [m], the row of every column.
        u: float64 [n]; v: float64 [m]: prices, u_i + v_j ≥ w_ij on every listed pair, with equality on matched pairs.
        w_mate: float64 [n]: the score of each row's pair.
        row_option, column_option: worth of an unmatched member of the side; −inf if all must be matched.
    """

    def __init__(self, n: int, m: int, row_option: float, column_option: float) -> None:
        self.n, self.m = n, m
        self.row_option, self.column_option = row_option, column_option
        self.mate, self.owner = np.full(n, -1, dtype=np.int64), np.full(m, -1, dtype=np.int64)
        self.u = np.full(n, max(row_option, 0.0))
        self.v = np.full(m, max(column_option, 0.0))
        self.w_mate, self._w_owner = np.zeros(n), np.zeros(m)
        # The list is replaced in one assignment, so that an interruption never leaves it half updated.
        self._listed = (np.empty(0, dtype=np.int64), np.empty(0))
        self._graph: Any = (None, None)

    @property
    def n_edges(self) -> int:
        """Return the number of listed pairs."""
        return int(self._listed[0].shape[0])

    def add(
        self,
        rows: Int64[np.ndarray, " pairs"],
        cols: Int64[np.ndarray, " pairs"],
        scores: Float64[np.ndarray, " pairs"],
    ) -> int:
        """Add the pairs that are not listed yet, and return their number."""
        keys, listed_scores = self._listed
        new, first = np.unique(rows * self.m + cols, return_index=True)
        at = np.searchsorted(keys, new)
        fresh = np.append(keys, -1)[at] != new
        if fresh.any():
            at, new = at[fresh], new[fresh]
            self._listed = (np.insert(keys, at, new), np.insert(listed_scores, at, scores[first[fresh]]))
        return int(fresh.sum())

    def best_listed(self) -> Float64[np.ndarray, " n"]:
        """Return max(row option, max over the row's listed pairs of w − v) at the current prices v."""
        from sae_geometry.matching.solver_loops import highest

        out = np.empty(self.n)
        highest(self._rows_graph(), self.v, self.row_option, out)
        return out

    def solve(self, slack: float) -> Iterator[float]:
        """Solve to optimality over the listed pairs, in slices, and yield the share of rows settled after each slice.

        Between slices, `v` is a valid set of prices (with the right sign); the matching may be incomplete.
        """
        from sae_geometry.matching.solver_loops import bid, refresh

        graph = self._rows_graph()
        rows, cols = (self.u, self.mate, self.w_mate), (self.v, self.owner, self._w_owner)
        refresh(graph, rows, cols, self.row_option, slack)
        for _ in range(2):
            bid(np.flatnonzero(self.mate < 0), _BIDS_PER_ROW * self.n, graph, rows, cols, self.row_option)
            yield 0.0
        yield from self._search(np.flatnonzero(self.mate < 0), graph, rows, cols, self.row_option, slack)
        if self.column_option > -np.inf:
            todo = np.flatnonzero((self.owner < 0) & (self.v > self.column_option))
            if todo.size:
                yield from self._search(todo, self._columns_graph(), cols, rows, self.column_option, 0.0)

    def _search(
        self, todo: Int64[np.ndarray, " free"], graph: Any, near: Any, far: Any, option: float, slack: float
    ) -> Iterator[float]:
        from sae_geometry.matching.solver_loops import search_all

        n_near, n_far = near[0].shape[0], far[0].shape[0]
        small = min(n_near, n_far) + 1
        scratch = (np.full(n_far, np.inf), np.empty(n_far, np.int32), np.empty(n_far, np.int64),
                   np.empty(n_far, np.int32), np.empty(n_far, np.int32), np.empty(n_far, np.int32),
                   np.empty(small, np.int32), np.empty(small, np.int32))  # fmt: skip
        at = 0
        while at < todo.size:
            at, stuck = search_all(todo, at, _SLICE, slack, graph, near, far, scratch, option)
            if stuck >= 0:
                raise ValueError(f"row {stuck} must be matched, but the listed pairs do not allow it; add pairs")
            yield at / todo.size

    def _rows_graph(self) -> Any:
        """Return the listed pairs by row: (pointers, columns, scores)."""
        if self._graph[0] is not self._listed:
            keys, scores = self._listed
            ptr = np.searchsorted(keys, np.arange(self.n + 1) * self.m)
            self._graph = (self._listed, (ptr, (keys % self.m).astype(np.int32), scores))
        return self._graph[1]

    def _columns_graph(self) -> Any:
        """Return the listed pairs by column: (pointers, rows, scores)."""
        ptr, cols, scores = self._rows_graph()
        order = np.argsort(cols, kind="stable")
        rows = np.repeat(np.arange(self.n, dtype=np.int32), np.diff(ptr))
        return (np.searchsorted(cols[order], np.arange(self.m + 1)), rows[order], scores[order])
