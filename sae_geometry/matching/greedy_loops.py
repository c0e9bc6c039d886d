"""Inner loop of greedy matching, compiled by numba. Import it where it is used: importing numba takes 0.3 s."""

from __future__ import annotations

import numpy as np

from sae_geometry.kernels.loops.jit import compiled


@compiled()
def _point(live, n_live, lists, at, taken):  # type: ignore[no-untyped-def]
    """Advance each live member's pointer to its first partner that is still free."""
    width = lists.shape[1]
    for t in range(n_live):
        i = live[t]
        p = at[i]
        while p < width and lists[i, p] >= 0 and taken[lists[i, p]] >= 0:
            p += 1
        at[i] = p


@compiled()
def _still_free(live, n_live, partner):  # type: ignore[no-untyped-def]
    kept = 0
    for t in range(n_live):
        if partner[live[t]] < 0:
            live[kept] = live[t]
            kept += 1
    return kept


@compiled()
def join_dominant(row_list, row_at, col_list, col_at, partner, owner):  # type: ignore[no-untyped-def]
    """Join locally dominant pairs in rounds until no listed pair is dominant. Return the number of rounds.

    row_list int64 [n, k] and col_list int64 [m, k] hold partners best first, −1 at the end; row_at [n] and col_at [m]
    point into them; partner [n] and owner [m] are −1 while unmatched. All but the lists are changed in place.
    """
    width_r, width_c = row_list.shape[1], col_list.shape[1]
    rows = np.flatnonzero(partner < 0)
    cols = np.flatnonzero(owner < 0)
    n_rows, n_cols = rows.shape[0], cols.shape[0]
    rounds = 0
    while n_rows > 0 and n_cols > 0:
        _point(rows, n_rows, row_list, row_at, owner)
        _point(cols, n_cols, col_list, col_at, partner)
        joined = 0
        for t in range(n_rows):
            i = rows[t]
            if row_at[i] >= width_r:
                continue
            j = row_list[i, row_at[i]]
            if j >= 0 and col_at[j] < width_c and col_list[j, col_at[j]] == i:
                partner[i] = j
                owner[j] = i
                joined += 1
        rounds += 1
        if joined == 0:
            break
        n_rows = _still_free(rows, n_rows, partner)
        n_cols = _still_free(cols, n_cols, owner)
    return rounds
