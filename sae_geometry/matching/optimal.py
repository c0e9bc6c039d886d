"""Optimal matching by column generation: solve a restricted problem exactly, then prove it or add missed pairs.

README.md has the mathematics. The prices bound every matching at any moment, so stopping early still gives a gap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.kernels.types import Best, Sweep
from sae_geometry.matching.assignment import Certificate, Progress, Step, Stopped, inverse
from sae_geometry.matching.bound import Unlisted, gap_of, outside_options
from sae_geometry.matching.defaults import listed
from sae_geometry.matching.greedy import quick_partners
from sae_geometry.matching.pairs import pair_cosines, take_rows
from sae_geometry.matching.restricted import Restricted

CANDIDATES = 32  # columns listed per row; half as many rows are listed per column
MORE = 16  # columns listed for an uncertified row
JITTER = 1e-2  # relative jitter of prices when columns are swept
ROUNDING = 1e-12  # gap per pair that float64 sums cannot distinguish from zero


class _OutOfTimeError(Exception):
    """Signal that the time budget is spent, so that the best matching so far is returned."""


@dataclass(frozen=True)
class _Matching:
    partner: Int64[np.ndarray, " n"]
    score: Float64[np.ndarray, " n"]
    value: float


@dataclass(frozen=True)
class _Prices:
    upper: Float64[np.ndarray, " n"]
    v: Float64[np.ndarray, " m"]
    bound: float


def optimal_partners(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    absolute: bool = False,
    min_similarity: float | None = None,
    max_gap: float = 0.0,
    time_budget: float = math.inf,
    nearest: Sweep | None = None,
    progress: Progress | None = None,
) -> tuple[Int64[np.ndarray, " n"], Certificate]:
    """Return the matching of greatest total score and its certificate without forming the n×m matrix; see `match`."""
    how = (max_gap, time_budget, progress)
    if a.shape[0] > b.shape[0] and min_similarity is None:
        swapped = None if nearest is None or nearest.cols is None else Sweep(nearest.cols, nearest.rows, nearest.report)
        return _Run(b, a, absolute, None, *how).go(swapped).answer(swapped=True)
    return _Run(a, b, absolute, min_similarity, *how).go(nearest).answer(swapped=False)


class _Run:
    """State of one column generation, in which rows are the side that must be matched, if there is one.

    `best` and `proof` are replaced in one assignment, so an interruption always leaves a matching and a valid bound.
    """

    def __init__(
        self,
        a: Tensor,
        b: Tensor,
        absolute: bool,
        min_similarity: float | None,
        max_gap: float,
        time_budget: float,
        progress: Progress | None,
    ) -> None:
        self.a, self.b, self.absolute, self.progress = a, b, absolute, progress
        self.n, self.m = a.shape[0], b.shape[0]
        self.min_similarity, self.max_gap, self.time_budget = min_similarity, max_gap, time_budget
        self.options = outside_options(self.n, self.m, min_similarity)
        self.master = Restricted(self.n, self.m, *self.options)
        self.best: _Matching | None = None
        self.proof: _Prices | None = None
        self.relative_gap = math.inf
        self.rounds, self.rows_asked, self.pairs_swept, self.solver_seconds = 0, 0, 0, 0.0
        self.stopped: Stopped = "optimal"
        self.start = time.perf_counter()

    def go(self, nearest: Sweep | None) -> _Run:
        """Iterate until the gap is proven small enough, time runs out, or Ctrl-C is pressed after the first sweep."""
        quick = self._list_candidates(nearest)
        try:
            if quick is None:
                self._keep(self.master.mate.copy())
            else:  # Rows must be matched, and these pairs make the restricted problem feasible.
                self.master.add(np.arange(self.n), quick, self._keep(quick).score)
            self._rounds()
            return self
        except KeyboardInterrupt:
            self.stopped = "interrupted"
        except _OutOfTimeError:
            self.stopped = "time_budget"
        if quick is None:
            self._keep(self.master.mate.copy())
        elif self.best is None:
            self._keep(quick)
        self._prove()
        return self

    def _rounds(self) -> None:
        while True:
            self._solve()
            self._prove()
            if self._good_enough() or not self._certify() or self._good_enough():
                return

    def _good_enough(self) -> bool:
        if self.relative_gap > self.max_gap:
            return False
        self.stopped = "max_gap"
        return True

    def _list_candidates(self, nearest: Sweep | None) -> Int64[np.ndarray, " n"] | None:
        """List the best pairs of every row and column; return a quick matching, or None if `min_similarity` is set."""
        if nearest is None or nearest.rows.index.shape[1] < CANDIDATES // 2:
            k = listed(CANDIDATES, self.n, self.m)
            nearest = listing_sweep(self.a, self.b, k, absolute=self.absolute,
                            progress=lambda share: self._step("candidates", share))  # fmt: skip
            self.pairs_swept += self.n * self.m
        assert nearest.cols is not None
        self._add(np.arange(self.n), nearest.rows, swapped=False)
        half = slice(0, max(1, nearest.cols.index.shape[1] // 2))
        cols = Best(nearest.cols.score[:, half], nearest.cols.cosine[:, half], nearest.cols.index[:, half])
        self._add(np.arange(self.m), cols, swapped=True)
        self.unlisted = Unlisted(_last(nearest.rows), self.master.v)
        self._prove()
        return quick_partners(nearest) if self.min_similarity is None else None

    def _solve(self) -> None:
        begun = time.perf_counter()
        self.rounds += 1
        try:
            for share in self.master.solve(self._tolerance()):
                self._tick("solve")(share)
        finally:
            self.solver_seconds += time.perf_counter() - begun
        self._keep(self.master.mate.copy())

    def _certify(self) -> bool:
        """Sweep uncertified rows; return False if no new pairs appear, so that the prices hold for all pairs."""
        fallen = self.unlisted.fallen(self.master.v)
        new = 0
        if fallen.size:
            everyone = np.arange(self.n)
            found = self._sweep(everyone, fallen)
            new += self._add(everyone, found, swapped=False)
            self.unlisted.columns_swept(fallen, _last(found), self.master.v)
        doubt = np.flatnonzero(self.unlisted.at(self.master.v) > self.master.best_listed() + self._tolerance())
        if doubt.size:
            found = self._sweep(doubt, np.arange(self.m))
            new += self._add(doubt, found, swapped=False)
            self.unlisted.rows_swept(doubt, _last(found), self.master.v)
            self.rows_asked += doubt.size
            if self.rows_asked >= self.n:  # Sweeping all columns costs no more than these rows did.
                new += self._ask_columns()
                self.rows_asked = 0
        self._prove()
        return new > 0

    def _ask_columns(self) -> int:
        """Add the best rows of every column as candidates, breaking ties and near-ties at random.

        Similar rows list the same few columns in every round; the added pairs spread such rows over the columns that
        prefer them, but do not tighten the bound.
        """
        jitter = np.random.default_rng(self.rounds).uniform(0, JITTER, self.n)
        found = listing_sweep(
            self.b, self.a, CANDIDATES // 2, columns=False, absolute=self.absolute,
            column_bias=torch.from_numpy(self.master.u + jitter).to(self.a.device), progress=self._tick("certify"),
        ).rows  # fmt: skip
        self.pairs_swept += self.n * self.m
        return self._add(np.arange(self.m), found, swapped=True)

    def _sweep(self, rows: Int64[np.ndarray, " some"], cols: Int64[np.ndarray, " few"]) -> Best:
        """Sweep S_ij − v_j for some rows and columns; return column indices in the full matrix."""
        bias = torch.from_numpy(self.master.v[cols]).to(self.a.device)
        a, b = take_rows(self.a, rows), take_rows(self.b, cols)
        found = listing_sweep(a, b, MORE, columns=False, absolute=self.absolute, column_bias=bias,
                              progress=self._tick("certify")).rows  # fmt: skip
        self.pairs_swept += rows.size * cols.size
        names = torch.from_numpy(cols).to(found.index.device)
        index = torch.where(found.index >= 0, names[found.index.clamp(min=0)], -1)
        return Best(found.score, found.cosine, index)

    def _add(self, members: Int64[np.ndarray, " some"], best: Best, *, swapped: bool) -> int:
        """Add the best pairs of `members` (rows, or columns if `swapped`), and return the number of new pairs."""
        index, cosine = best.index.cpu().numpy(), best.cosine.cpu().numpy()
        score = np.abs(cosine) if self.absolute else cosine
        use = index >= 0
        if self.min_similarity is not None:
            use &= score > self.min_similarity
        mine = np.broadcast_to(members[:, None], index.shape)[use]
        rows, cols = (index[use], mine) if swapped else (mine, index[use])
        return self.master.add(rows, cols, score[use])

    def _prove(self) -> None:
        """Store the current dual prices if their bound is the lowest so far."""
        v = self.master.v.copy()
        upper = np.maximum(self.master.best_listed(), self.unlisted.at(v))
        bound = gap_of(np.full(self.n, np.nan), upper, v, self.options).bound
        if self.proof is None or bound < self.proof.bound:
            self.proof = _Prices(upper, v, bound)
        self._measure()

    def _keep(self, partner: Int64[np.ndarray, " n"]) -> _Matching:
        """Store a matching if its value is the highest so far; return it in any case."""
        assert self.proof is not None
        rows = np.flatnonzero(partner >= 0)
        cosine = pair_cosines(self.a, self.b, rows, partner[rows])
        score = np.full(self.n, np.nan)
        score[rows] = np.abs(cosine) if self.absolute else cosine
        found = _Matching(partner, score, gap_of(score, self.proof.upper, self.proof.v, self.options).value)
        if self.best is None or found.value >= self.best.value:
            self.best = found
        self._measure()
        return found

    def _measure(self) -> None:
        if self.best is not None and self.proof is not None:
            self.relative_gap = gap_of(self.best.score, self.proof.upper, self.proof.v, self.options).relative

    def _tolerance(self) -> float:
        """Return the threshold below which differences of prices and scores are rounding."""
        return 2.0**-50 * (1.0 + float(np.abs(self.master.v).max()))

    def _tick(self, stage: str) -> Callable[[float], None]:
        def tick(share: float) -> None:
            self._step(stage, share)
            if time.perf_counter() - self.start > self.time_budget:
                raise _OutOfTimeError

        return tick

    def _step(self, stage: str, share: float) -> None:
        if self.progress is not None:
            self.progress(Step(stage, share, self.relative_gap))

    def answer(self, *, swapped: bool) -> tuple[Int64[np.ndarray, " n"], Certificate]:
        """Return the best matching and its certificate, with the sides in the caller's order."""
        assert self.best is not None
        assert self.proof is not None
        gap = gap_of(self.best.score, self.proof.upper, self.proof.v, self.options)
        certified = gap.gap <= ROUNDING * max(1, min(self.n, self.m))
        u, v, partner = np.maximum(self.proof.upper, self.options[0]), self.proof.v, self.best.partner
        if swapped:
            u, v, partner = v, u, inverse(partner, self.m)
        certificate = Certificate(
            **vars(gap),
            relative_gap=gap.relative,
            certified=certified,
            rounds=self.rounds,
            edges_per_row=self.master.n_edges / self.n,
            sweeps=self.pairs_swept / (self.n * self.m),
            seconds=time.perf_counter() - self.start,
            solver_seconds=self.solver_seconds,
            stopped="optimal" if certified else self.stopped,
            row_duals=u,
            column_duals=v,
            min_similarity=self.min_similarity,
        )
        return partner, certificate


def _last(best: Best) -> Float64[np.ndarray, " n"]:
    return np.asarray(best.score[:, -1].cpu().numpy(), dtype=np.float64)
