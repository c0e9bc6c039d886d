"""Lists of best partners, and their merge.

A list holds up to k partners by (score descending, index ascending); the merge takes the first k of the union. Scores
are exact and the order is total, so merging is associative, commutative and idempotent: the k best of a row do not
depend on how its partners were split into pieces, on the order of the pieces, or on repeated pieces.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from sae_geometry.kernels.loops.jit import compiled

Lists = tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]
"""Score, cosine and index of every row's partners, padded with −inf, nan and −1."""


def no_lists(n: int, k: int) -> Lists:
    """Return empty lists for n rows, into which other lists can be merged."""
    return np.full((n, k), -np.inf), np.full((n, k), np.nan), np.full((n, k), -1, dtype=np.int64)


def merge_into(lists: Lists, others: Lists, start: int) -> None:
    """Merge `others`, the lists of the consecutive rows that begin at `start`, into `lists` in place."""
    rows = slice(start, start + len(others[0]))
    _merge_rows(lists[0][rows], lists[1][rows], lists[2][rows], others[0], others[1], others[2])


@compiled()
def _merge_rows(
    score: Float64[np.ndarray, "n k"],
    cosine: Float64[np.ndarray, "n k"],
    index: Int64[np.ndarray, "n k"],
    other_score: Float64[np.ndarray, "n l"],
    other_cosine: Float64[np.ndarray, "n l"],
    other_index: Int64[np.ndarray, "n l"],
) -> None:
    n, k = score.shape
    more = other_score.shape[1]
    new_score, new_cosine, new_index = np.empty(k), np.empty(k), np.empty(k, np.int64)
    for row in range(n):
        mine, theirs, kept = 0, 0, 0
        while kept < k:
            has_mine = mine < k and index[row, mine] >= 0
            has_theirs = theirs < more and other_index[row, theirs] >= 0
            if not has_mine and not has_theirs:
                break
            if has_mine and has_theirs and index[row, mine] == other_index[row, theirs]:
                theirs += 1
                continue
            take_mine = has_mine and (
                not has_theirs
                or score[row, mine] > other_score[row, theirs]
                or (score[row, mine] == other_score[row, theirs] and index[row, mine] < other_index[row, theirs])
            )
            if take_mine:
                new_score[kept], new_cosine[kept] = score[row, mine], cosine[row, mine]
                new_index[kept] = index[row, mine]
                mine += 1
            else:
                new_score[kept], new_cosine[kept] = other_score[row, theirs], other_cosine[row, theirs]
                new_index[kept] = other_index[row, theirs]
                theirs += 1
            kept += 1
        for at in range(kept):
            score[row, at], cosine[row, at], index[row, at] = new_score[at], new_cosine[at], new_index[at]
