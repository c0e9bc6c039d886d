"""UMAP optimizer, one vertex at a time: bit-identical layouts on any number of threads.

umap-learn moves both ends of an edge, so threads would race, and a seeded run uses one thread. Here, every vertex sums
the attractions and repulsions on itself, from the positions of the others when its block began. An edge is stored at
both ends with the same weight and phase, and each end also applies the attraction of the other end, so a sampled edge
attracts twice. Random numbers depend on seed, epoch and vertex alone, and powers are polynomials, so positions do not
depend on a library's `pow`. Import this module only where it is used: importing numba takes 0.3 s.
"""

from __future__ import annotations

import numpy as np

from sae_geometry.kernels.loops.jit import SUMS_IN_ANY_ORDER, compiled

_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
# log2(1 + f) = f · (l0 + l1 f + …) and 2^r = e0 + e1 r + … on [0, 1), fitted at Chebyshev points.
_L0, _L1, _L2, _L3, _L4, _L5 = (
    np.float32(c) for c in (1.442669, -0.72017735, 0.46803418, -0.30105925, 0.14469352, -0.03417885)
)
_E0, _E1, _E2, _E3, _E4, _E5 = (
    np.float32(c) for c in (0.99999976, 0.6931568, 0.24013174, 0.055876505, 0.0089406036, 0.0018943829)
)
_EXPONENT, _MANTISSA, _ONE_BITS = np.int32(127), np.int32(0x007FFFFF), np.int32(0x3F800000)
_PLACE = np.int32(23)
_ONE, _LEAST, _LIMIT, _NEAR = np.float32(1.0), np.float32(-126.0), np.float32(4.0), np.float32(0.001)
_TINY = np.float32(1e-30)


@compiled()
def mixed(z):  # type: ignore[no-untyped-def]
    """Return splitmix64's output function of a uint64, as a uint64."""
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@compiled(fastmath=SUMS_IN_ANY_ORDER)
def power(base, exponent):  # type: ignore[no-untyped-def]
    """Return base ** exponent in float32, for a normal base > 0, to a relative error of 2e-5."""
    bits = np.float32(base).view(np.int32)
    fraction = np.int32((bits & _MANTISSA) | _ONE_BITS).view(np.float32) - _ONE
    series = _L0 + fraction * (_L1 + fraction * (_L2 + fraction * (_L3 + fraction * (_L4 + fraction * _L5))))
    log = exponent * (np.float32((bits >> _PLACE) - _EXPONENT) + fraction * series)
    log = max(log, _LEAST)
    whole = np.floor(log)
    rest = log - whole
    part = _E0 + rest * (_E1 + rest * (_E2 + rest * (_E3 + rest * (_E4 + rest * _E5))))
    return part * np.int32((np.int32(whole) + _EXPONENT) << _PLACE).view(np.float32)


@compiled(fastmath=SUMS_IN_ANY_ORDER)
def _clipped(value):  # type: ignore[no-untyped-def]
    return min(max(value, -_LIMIT), _LIMIT)


@compiled(fastmath=SUMS_IN_ANY_ORDER)
def move_vertices(first, last, graph, here, there, fixed, curve, epoch, alpha, seed, negatives):  # type: ignore[no-untyped-def]
    """Move vertices first…last − 1 by one epoch, reading `here` and writing `there`, both float32 [n, 2].

    Args:
        graph: (indptr int64 [n + 1], indices int32 [edges], rate float32 [edges]); rate is the share of epochs in which
            an edge is sampled, in (0, 1].
        fixed: vertices 0…fixed − 1 never move, edges to these attract once, and only these repel; 0: all move.
        curve: float32 [2], UMAP's a and b.
        negatives: negative samples per sampled edge.
    """
    indptr, indices, rate = graph
    a, b = curve[0], curve[1]
    n = np.uint64(len(here))
    drawn = n if fixed == 0 else np.uint64(fixed)
    pull_scale, push_scale, step = np.float32(-2.0) * a * b, np.float32(2.0) * b, np.float32(alpha)
    for i in range(max(first, fixed), last):
        x, y = here[i, 0], here[i, 1]
        state = mixed(seed + _GOLDEN * (np.uint64(epoch) * n + np.uint64(i) + np.uint64(1)))
        for at in range(indptr[i], indptr[i + 1]):
            if np.floor(rate[at] * (epoch + 1)) <= np.floor(rate[at] * epoch):
                continue
            j = indices[at]
            for _ in range(1 if j < fixed else 2):
                dx, dy = x - here[j, 0], y - here[j, 1]
                square = max(dx * dx + dy * dy, _TINY)
                raised = power(square, b)
                pull = pull_scale * raised / (square * (a * raised + _ONE))
                x += step * _clipped(pull * dx)
                y += step * _clipped(pull * dy)
            push_x, push_y = np.float32(0.0), np.float32(0.0)
            for drawing in range(negatives):
                random = mixed(state + _GOLDEN * np.uint64(drawing + 1))
                j = np.int64(((random >> _S32) * drawn) >> _S32)
                dx, dy = x - here[j, 0], y - here[j, 1]
                square = max(dx * dx + dy * dy, _TINY)
                push = push_scale / ((_NEAR + square) * (a * power(square, b) + _ONE))
                push_x += _clipped(push * dx)
                push_y += _clipped(push * dy)
            state += _GOLDEN * np.uint64(negatives)
            x += step * push_x
            y += step * push_y
        there[i, 0], there[i, 1] = x, y
