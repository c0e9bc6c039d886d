"""Inner loops of the CPU screen, compiled by numba because they are too fine-grained for tensor operations.

Import this module where it is used: importing numba takes 0.3 s.
"""

from __future__ import annotations

import numpy as np

from sae_geometry.kernels.loops.jit import SUMS_IN_ANY_ORDER, compiled

GROUP = 64  # Number of scores compared at once. A group without candidates for the shortlist costs a few instructions.


@compiled()
def exact_dots_loop(x, y, rows, cols, out):  # type: ignore[no-untyped-def]
    """Set out[p] = ⟨x[rows[p]], y[cols[p]]⟩ by error-free pairwise halving, in the order that `exact` defines."""
    d = x.shape[1]
    half = (d + 1) // 2
    s = np.empty(half, dtype=np.float64)
    e = np.empty(half, dtype=np.float64)
    for p in range(rows.shape[0]):
        u = x[rows[p]]
        v = y[cols[p]]
        _first_halving(u[: d - half], u[half:], v[: d - half], v[half:], s, e)
        if d - half < half:
            s[half - 1] = np.float64(u[half - 1]) * np.float64(v[half - 1])
            e[half - 1] = 0.0
        width = half
        while width > 1:
            h = (width + 1) // 2
            _halve(s[: width - h], s[h:width], e[: width - h], e[h:width])
            width = h
        out[p] = s[0] + e[0]


@compiled()
def _first_halving(u_lo, u_hi, v_lo, v_hi, s, e):  # type: ignore[no-untyped-def]
    for t in range(u_hi.shape[0]):
        a = np.float64(u_lo[t]) * np.float64(v_lo[t])
        b = np.float64(u_hi[t]) * np.float64(v_hi[t])
        r = a + b
        w = r - a
        s[t] = r
        e[t] = (a - (r - w)) + (b - w)


@compiled()
def _halve(lo, hi, e_lo, e_hi):  # type: ignore[no-untyped-def]
    for t in range(hi.shape[0]):
        a = lo[t]
        b = hi[t]
        r = a + b
        w = r - a
        lo[t] = r
        e_lo[t] = (e_lo[t] + e_hi[t]) + ((a - (r - w)) + (b - w))


@compiled(SUMS_IN_ANY_ORDER)
def float32_dot(u, v):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for t in range(u.shape[0]):
        total += u[t] * v[t]
    return total


@compiled()
def _insert(values, indices, score, index):  # type: ignore[no-untyped-def]
    """Insert (score, index) into one descending shortlist and drop its last entry."""
    at = values.shape[0] - 1
    while at > 0 and values[at - 1] < score:
        values[at] = values[at - 1]
        indices[at] = indices[at - 1]
        at -= 1
    values[at] = score
    indices[at] = index


# Both scans compare GROUP scores at once without branches, and GROUP is a compile-time constant, so they vectorize.


@compiled()
def scan_rows(block, col0, values, indices):  # type: ignore[no-untyped-def]
    """Offer every score of `block` [rows, cols] to its row's shortlist; column c of the block is index col0 + c."""
    n, m = block.shape
    last = values.shape[1] - 1
    for i in range(n):
        floor = values[i, last]
        for group in range(-(-m // GROUP)):
            start = group * GROUP
            if start + GROUP <= m:
                above = np.int32(0)
                for t in range(GROUP):
                    above |= np.int32(block[i, start + t] > floor)
                if above == 0:
                    continue
            for j in range(start, min(start + GROUP, m)):
                if block[i, j] > floor:
                    _insert(values[i], indices[i], block[i, j], col0 + j)
                    floor = values[i, last]


@compiled()
def scan_cols(block, row0, values, indices, floor):  # type: ignore[no-untyped-def]
    """Offer every score of `block` to its column's shortlist; row r of the block is index row0 + r.

    `floor` is scratch space with one entry per column."""
    n, m = block.shape
    last = values.shape[1] - 1
    for j in range(m):
        floor[j] = values[j, last]
    for r in range(n):
        for group in range(-(-m // GROUP)):
            start = group * GROUP
            if start + GROUP <= m:
                above = np.int32(0)
                for t in range(GROUP):
                    above |= np.int32(block[r, start + t] > floor[start + t])
                if above == 0:
                    continue
            for j in range(start, min(start + GROUP, m)):
                if block[r, j] > floor[j]:
                    _insert(values[j], indices[j], block[r, j], row0 + r)
                    floor[j] = values[j, last]


@compiled()
def blank_lower(block, row0, col0):  # type: ignore[no-untyped-def]
    """Set the scores at or below the diagonal of C (column ≤ row) to −inf in this block."""
    n, m = block.shape
    for i in range(max(0, col0 - row0), n):
        block[i, : min(m, row0 + i - col0 + 1)] = -np.inf


@compiled()
def merge(values, indices, more_values, more_indices):  # type: ignore[no-untyped-def]
    """Merge one set of shortlists into another, row by row; the order of merges affects only ties."""
    last = values.shape[1] - 1
    for i in range(values.shape[0]):
        for t in range(more_values.shape[1]):
            if more_values[i, t] <= values[i, last]:
                break
            _insert(values[i], indices[i], more_values[i, t], more_indices[i, t])
