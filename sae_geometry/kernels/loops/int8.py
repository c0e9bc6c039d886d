"""Compiled loops of the int8 screen: rotate and quantize rows, convert integer products to scores, re-score.

Import this module where it is used: importing numba takes 0.3 s.
"""

from __future__ import annotations

import numpy as np

from sae_geometry.kernels.loops.cpu import float32_dot
from sae_geometry.kernels.loops.jit import MAX_IN_ANY_ORDER, compiled

LEVELS = 127  # maximum absolute int8 value
ROUND = np.float32(1.5 * 2**23)  # Adding and then subtracting this number rounds a small float32 to an integer.


@compiled()
def _fold(source, target):  # type: ignore[no-untyped-def]
    half = source.shape[0] // 2
    for t in range(half):
        a = source[2 * t]
        b = source[2 * t + 1]
        target[t] = a + b
        target[t + half] = a - b


@compiled()
def _hadamard(z, scratch):  # type: ignore[no-untyped-def]
    """Multiply z in place by H, the ±1 Hadamard matrix of its length (a power of two); H/√length is orthogonal.

    Every stage folds neighbors into the two halves, which vectorizes; `scratch` is as long as z.
    """
    in_z = True
    step = 1
    while step < z.shape[0]:
        if in_z:
            _fold(z, scratch)
        else:
            _fold(scratch, z)
        in_z = not in_z
        step *= 2
    if not in_z:
        z[:] = scratch


@compiled(MAX_IN_ANY_ORDER)
def _largest_magnitude(z):  # type: ignore[no-untyped-def]
    top = np.float32(0)
    for t in range(z.shape[0]):
        top = max(top, abs(z[t]))
    return top


@compiled({"nnan", "ninf", "nsz", "reassoc"})
def _squares(z, q, scale):  # type: ignore[no-untyped-def]
    """Return Σ (z − scale·q)² and Σ q²."""
    left = 0.0
    whole = 0.0
    for t in range(z.shape[0]):
        k = np.float64(q[t])
        r = np.float64(z[t]) - np.float64(scale) * k
        left += r * r
        whole += k * k
    return left, whole


@compiled()
def quantize_rows(x, signs, stages, q, scale, residual, length):  # type: ignore[no-untyped-def]
    """Rotate each row (signs, then one Hadamard matrix per block), scale its largest entry to 127, and round to int8.

    `stages` holds the ends and factors of the Hadamard blocks; q [n, padded] is filled with int8. For each row,
    scale·q is the quantized rotated row, `residual` the norm of the rounding error, `length` the norm of scale·q.
    """
    n, d = x.shape
    z = np.zeros(q.shape[1], dtype=np.float32)
    scratch = np.empty(q.shape[1], dtype=np.float32)
    for i in range(n):
        for t in range(d):
            z[t] = x[i, t] * signs[t]
        z[d:] = 0.0
        start = 0
        for b in range(stages.shape[0]):
            stop = int(stages[b, 0])
            _hadamard(z[start:stop], scratch[: stop - start])
            factor = np.float32(stages[b, 1])
            for t in range(start, stop):
                z[t] *= factor
            start = stop
        top = _largest_magnitude(z)
        if top < 1e-30:  # The row is too small for int8, so all of it is residual.
            q[i] = 0
            scale[i] = 0.0
        else:
            scale[i] = top / np.float32(LEVELS)
            inverse = np.float32(LEVELS) / top
            for t in range(z.shape[0]):
                q[i, t] = np.int8(np.int32((z[t] * inverse + ROUND) - ROUND))
        left, whole = _squares(z, q[i], scale[i])
        residual[i] = np.sqrt(left)
        length[i] = np.float64(scale[i]) * np.sqrt(whole)


@compiled()
def scale_products(products, row_scale, col_scale, bias, absolute, out):  # type: ignore[no-untyped-def]
    """Set `out` to row_scale · products · col_scale, or its absolute value, minus the bias if given."""
    n, m = products.shape
    for i in range(n):
        for j in range(m):
            out[i, j] = np.float32(products[i, j]) * (row_scale[i] * col_scale[j])
        if absolute:
            for j in range(m):
                out[i, j] = abs(out[i, j])
        if bias.shape[0] > 0:
            for j in range(m):
                out[i, j] -= bias[j]


@compiled()
def look_again(x, y, values, indices, coarse, fine, bias, absolute, k):  # type: ignore[no-untyped-def]
    """Replace int8 scores with float32 scores in place, best first, until no later entry can be among the k best.

    `coarse` and `fine` are each row's int8 and float32 ε. Let L be the k-th best float32 score so far minus its ε. Once
    an int8 score plus ε is below L, neither its column nor any later column is among the k best; all are dropped."""
    best = np.empty(k, dtype=np.float64)
    for i in range(values.shape[0]):
        best[:] = -np.inf
        width = values.shape[1]
        at = 0
        while at < width and indices[i, at] >= 0:
            if np.float64(values[i, at]) + coarse[i] < best[k - 1] - fine[i]:
                break
            j = indices[i, at]
            score = float32_dot(x[i], y[j])
            if absolute:
                score = abs(score)
            if bias.shape[0] > 0:
                score = score - bias[j]
            values[i, at] = score
            place = k - 1
            if score > best[place]:
                while place > 0 and best[place - 1] < score:
                    best[place] = best[place - 1]
                    place -= 1
                best[place] = score
            at += 1
        for t in range(at, width):
            values[i, t] = -np.inf
            indices[i, t] = -1
