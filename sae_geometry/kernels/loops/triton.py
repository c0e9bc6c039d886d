"""Fused triton kernel: a tiled product that writes only the best few scores of each row.

Import this module where it is used, because triton is optional. Two passes let even a few rows fill a GPU: `list_tiles`
lists the best of every split of the columns, and `merge_splits` merges the splits in order. README.md, "The fused
screen", explains why the answer depends on neither tiles nor splits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def jitted(function: Callable[..., Any]) -> Any:
    """Unwrap a function from any type checker, since triton compiles its source, and apply `triton.jit`."""
    return triton.jit(inspect.unwrap(function))


def interpreted() -> bool:
    """Return whether the kernels run in triton's interpreter on the CPU (TRITON_INTERPRET set at definition)."""
    return not isinstance(list_tiles, triton.JITFunction)


@jitted
def _insert(scores, columns, values, indices):  # type: ignore[no-untyped-def]
    """Insert a tile's scores into the rows' lists, best first; a tile without better scores costs one maximum.

    Empty slots hold −inf and distinct negative indices, so that exactly one slot is replaced at a time: the worst
    score, and among equals the last column.
    """
    best = tl.max(scores, axis=1)
    worst = tl.min(values, axis=1)
    while tl.max((best > worst).to(tl.int32), axis=0) > 0:
        column = tl.min(tl.where(scores == best[:, None], columns, 2147483647), axis=1)
        place = tl.max(tl.where(values == worst[:, None], indices, -2147483648), axis=1)
        given_up = (best > worst)[:, None] & (indices == place[:, None])
        values = tl.where(given_up, best[:, None], values)
        indices = tl.where(given_up, column[:, None], indices)
        scores = tl.where(columns == column[:, None], float("-inf"), scores)
        best = tl.max(scores, axis=1)
        worst = tl.min(values, axis=1)
    return values, indices


@jitted
def _no_lists(ROWS: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    values = tl.full([ROWS, WIDTH], float("-inf"), tl.float32)
    indices = tl.broadcast_to(-1 - tl.arange(0, WIDTH)[None, :], [ROWS, WIDTH])
    return values, indices


@jitted
def list_tiles(  # type: ignore[no-untyped-def]
    x,
    y,
    bias,
    values,
    indices,
    n,
    m,
    d,
    row0,
    each,
    factor,
    x_row,
    x_entry,
    y_row,
    y_entry,
    ABSOLUTE: tl.constexpr,
    BIAS: tl.constexpr,
    WITHIN: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """List the `WIDTH` best columns of each of n rows in each split of the m columns, unordered.

    x [n, d] and y [m, d] may have any strides; values, indices are [splits, n, WIDTH]. Program (r, s) takes ROWS rows
    from r·ROWS and `each` columns, a multiple of COLS, from s·each. A score is factor·⟨x, y⟩ or its absolute value,
    minus bias[column]; WITHIN excludes column row0 + row.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1)
    entries = tl.arange(0, DEPTH)
    x_tile = x + rows.to(tl.int64)[:, None] * x_row + entries.to(tl.int64)[None, :] * x_entry
    best, where = _no_lists(ROWS, WIDTH)
    stop = tl.minimum((part + 1) * each, m)
    for start in range(part * each, stop, COLS):
        cols = start + tl.arange(0, COLS)
        y_tile = y + cols.to(tl.int64)[None, :] * y_row + entries.to(tl.int64)[:, None] * y_entry
        total = tl.zeros([ROWS, COLS], tl.float32)
        for at in range(0, d, DEPTH):
            skip = tl.full([], 0, tl.int64) + at
            left = tl.load(x_tile + skip * x_entry, mask=(rows < n)[:, None] & (entries < d - at)[None, :], other=0.0)
            right = tl.load(
                y_tile + skip * y_entry, mask=(cols < stop)[None, :] & (entries < d - at)[:, None], other=0.0
            )
            total = tl.dot(left, right, total, input_precision=PRECISION)
        scores = total * factor
        if ABSOLUTE:
            scores = tl.abs(scores)
        if BIAS:
            scores -= tl.load(bias + cols, mask=cols < stop, other=0.0)[None, :]
        counts = (cols < stop)[None, :] & (scores == scores)
        if WITHIN:
            counts &= cols[None, :] != (row0 + rows)[:, None]
        scores = tl.where(counts, scores, float("-inf"))
        best, where = _insert(scores, cols[None, :], best, where)
    slots = (part.to(tl.int64) * n + rows)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(values + slots, best, mask=(rows < n)[:, None])
    tl.store(indices + slots, where, mask=(rows < n)[:, None])


@jitted
def merge_splits(  # type: ignore[no-untyped-def]
    values, indices, out_values, out_indices, n, splits, keep, out_row, WIDTH: tl.constexpr, ROWS: tl.constexpr
):
    """Merge all splits to each row's `keep` best by (score descending, column ascending), padded with −inf and −1."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    best, where = _no_lists(ROWS, WIDTH)
    for part in range(splits):
        slots = (tl.full([ROWS], 0, tl.int64) + part) * n + rows
        slots = slots[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
        scores = tl.load(values + slots, mask=(rows < n)[:, None], other=float("-inf"))
        columns = tl.load(indices + slots, mask=(rows < n)[:, None], other=-1)
        best, where = _insert(scores, columns, best, where)
    out = rows.to(tl.int64) * out_row
    for rank in range(keep):
        top = tl.max(best, axis=1)
        column = tl.min(tl.where(best == top[:, None], where, 2147483647), axis=1)
        tl.store(out_values + out + rank, top, mask=rows < n)
        tl.store(out_indices + out + rank, tl.where(top == float("-inf"), -1, column).to(tl.int64), mask=rows < n)
        taken = where == column[:, None]
        best = tl.where(taken, float("-inf"), best)
        where = tl.where(taken, 2147483647, where)
