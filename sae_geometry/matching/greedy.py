"""Greedy matching in rounds, without sorting all n·m pairs; README.md proves that it equals sequential greedy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from sae_geometry.kernels.sweep import MAX_K, listing_sweep
from sae_geometry.kernels.types import Progress, Sweep
from sae_geometry.matching.defaults import listed
from sae_geometry.matching.pairs import take_rows

_FIRST_K = 16
_AGAIN_K = 8  # Shorter lists cost less when rows are swept again, and most rows find a partner in them.


class Lists:
    """Partner lists of one side, best first and padded with −1, with each member's current position in its list."""

    def __init__(self, index: Tensor) -> None:
        self.partners = np.array(index.cpu().numpy(), dtype=np.int64, order="C")
        self.at = np.zeros(len(self.partners), dtype=np.int64)

    def spent(self, members: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " fewer"]:
        """Return the `members` whose lists are exhausted."""
        at = self.at[members]
        padded = np.minimum(at, self.partners.shape[1] - 1)
        return members[(at >= self.partners.shape[1]) | (self.partners[members, padded] < 0)]

    def replace(self, members: Int64[np.ndarray, " some"], partners: Int64[np.ndarray, "some k"]) -> None:
        """Replace the lists of `members`."""
        grow = partners.shape[1] - self.partners.shape[1]
        if grow > 0:
            self.partners = np.pad(self.partners, ((0, 0), (0, grow)), constant_values=-1)
        self.partners[members] = -1
        self.partners[members, : partners.shape[1]] = partners
        self.at[members] = 0


def greedy_partners(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    absolute: bool = False,
    lists: tuple[Tensor, Tensor] | None = None,
    progress: Progress | None = None,
) -> tuple[Int64[np.ndarray, " n"], int]:
    """Match greedily over all pairs by (score descending, row ascending, column ascending), exactly.

    Locally dominant pairs are joined in rounds over lists of the k best. A row or column whose list is exhausted is
    swept again against unmatched latents only. Memory grows with the lists, not with n·m.

    Args:
        lists: nearest rows of b for each row of a, int64 [n, k], and nearest rows of a for each row of b, int64 [m, k]:
            best first, padded with −1 at the end; computed by a sweep if None.
        progress: called with the share of pairs joined, in [0, 1].

    Returns:
        The partner of every row, int64 [n], −1 for the n − m rows left over if n > m; and the number of pairs swept.
    """
    from sae_geometry.matching import greedy_cuda, greedy_loops

    on_gpu = a.device.type == "cuda" and greedy_cuda.available()
    join_dominant = greedy_cuda.join_dominant_cuda if on_gpu else greedy_loops.join_dominant
    swept = 0
    if lists is None:
        start = listing_sweep(a, b, listed(_FIRST_K, len(a), len(b)), absolute=absolute)
        assert start.cols is not None
        lists, swept = (start.rows.index, start.cols.index), a.shape[0] * b.shape[0]
    rows, cols = map(Lists, lists)
    partner = np.full(a.shape[0], -1, dtype=np.int64)
    owner = np.full(b.shape[0], -1, dtype=np.int64)
    k = listed(_AGAIN_K, len(a), len(b))
    while True:
        join_dominant(rows.partners, rows.at, cols.partners, cols.at, partner, owner)
        free_rows, free_cols = np.flatnonzero(partner < 0), np.flatnonzero(owner < 0)
        if progress is not None:
            progress(1 - min(free_rows.size, free_cols.size) / min(partner.size, owner.size))
        if free_rows.size == 0 or free_cols.size == 0:
            return partner, swept
        swept += _ask_again(a, b, rows, cols, free_rows, free_cols, k, absolute)
        k = min(2 * k, MAX_K)


def quick_partners(lists: Sweep) -> Int64[np.ndarray, " n"]:
    """Form min(n, m) pairs from a sweep's lists alone: dominant pairs in rounds, then the rest in index order."""
    from sae_geometry.matching.greedy_loops import join_dominant

    assert lists.cols is not None
    rows, cols = Lists(lists.rows.index), Lists(lists.cols.index)
    partner = np.full(rows.at.size, -1, dtype=np.int64)
    owner = np.full(cols.at.size, -1, dtype=np.int64)
    join_dominant(rows.partners, rows.at, cols.partners, cols.at, partner, owner)
    free_rows, free_cols = np.flatnonzero(partner < 0), np.flatnonzero(owner < 0)
    pairs = min(free_rows.size, free_cols.size)
    partner[free_rows[:pairs]] = free_cols[:pairs]
    return partner


def _ask_again(
    a: Tensor,
    b: Tensor,
    rows: Lists,
    cols: Lists,
    free_rows: Int64[np.ndarray, " r"],
    free_cols: Int64[np.ndarray, " c"],
    k: int,
    absolute: bool,
) -> int:
    """Replace exhausted lists by sweeping unmatched rows against unmatched columns; return the number of pairs."""
    ask_rows, ask_cols = rows.spent(free_rows), cols.spent(free_cols)
    assert ask_rows.size + ask_cols.size > 0, "the best remaining pair is dominant, so some list is exhausted"
    free_a, free_b = take_rows(a, free_rows), take_rows(b, free_cols)
    each = ask_rows.size * free_cols.size + ask_cols.size * free_rows.size
    if each >= free_rows.size * free_cols.size:
        found = listing_sweep(free_a, free_b, k, absolute=absolute)
        assert found.cols is not None
        rows.replace(free_rows, _renamed(found.rows.index, free_cols))
        cols.replace(free_cols, _renamed(found.cols.index, free_rows))
        return free_rows.size * free_cols.size
    for side, ask, own, theirs, names in (
        (rows, ask_rows, a, free_b, free_cols),
        (cols, ask_cols, b, free_a, free_rows),
    ):
        if ask.size:
            one = listing_sweep(take_rows(own, ask), theirs, k, columns=False, absolute=absolute)
            side.replace(ask, _renamed(one.rows.index, names))
    return int(each)


def _renamed(index: Int64[Tensor, "some k"], names: Int64[np.ndarray, " subset"]) -> Int64[np.ndarray, "some k"]:
    """Map indices in a subset to indices in the full side; ascending `names` preserve the canonical order of ties."""
    local = index.cpu().numpy()
    return np.where(local >= 0, names[local], -1)
