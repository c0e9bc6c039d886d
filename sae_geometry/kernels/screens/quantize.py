"""Dictionaries in int8, with the measured quantization error of every row.

Rows are rotated before they are rounded, by fixed random signs and one Hadamard matrix per block of 256 entries, which
spreads an outlier over its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sae_geometry.kernels.error_bounds import SLACK, TINY32, U32
from sae_geometry.kernels.loops.threads import in_parallel

_BLOCK = 256
_AT_ONCE = 1024  # rows in a thread's unit of work
MAX_WIDTH = 1 << 16  # Integer sums cannot overflow, since 127² · 2¹⁶ < 2³¹.


@dataclass(frozen=True)
class Quantized:
    """Rows x̂ = scale · q of a rotated dictionary, with bounds on their error.

    q: int8 [n, padded]; scale: float32 [n]; residual: float64 [n] ≥ ‖Rx − x̂‖; length: float64 [n] ≥ ‖x̂‖.
    """

    q: Tensor
    scale: Tensor
    residual: Tensor
    length: Tensor

    def part(self, start: int, stop: int) -> Quantized:
        """Return the rows `start:stop` with their scales and bounds."""
        return Quantized(*(t[start:stop] for t in (self.q, self.scale, self.residual, self.length)))


@dataclass(frozen=True)
class Spread:
    """Inputs of a quantized dictionary's error bound, float64 [n]: two fields of `Quantized`, and norms ≥ ‖x‖."""

    residual: Tensor
    length: Tensor
    norms: Tensor


def quantize(x: Tensor, norms: Tensor, threads: int = 1) -> Quantized:
    """Rotate rows and round them to int8, with the error of every row; the rotation depends on the width alone.

    Rotating in float32 errs by at most (log₂ 256 + 2)·u ‖x‖ to first order (each stage is a multiple of an orthogonal
    matrix, and each of its outputs is one rounded sum); 12 u and underflow are added to the measured residual.
    """
    from sae_geometry.kernels.loops.int8 import quantize_rows

    n, d = x.shape
    stages = hadamard_stages(d)
    padded = int(stages[-1, 0])
    q = torch.empty((n, padded), dtype=torch.int8)
    scale = torch.empty(n, dtype=torch.float32)
    residual, length = torch.empty(n, dtype=torch.float64), torch.empty(n, dtype=torch.float64)

    signs = rotation_signs(d)

    def work(start: int) -> None:
        part = slice(start, start + _AT_ONCE)
        quantize_rows(x[part].numpy(), signs, stages, *(t[part].numpy() for t in (q, scale, residual, length)))

    in_parallel(lambda _: work, range(0, n, _AT_ONCE), threads)
    return Quantized(q, scale, (residual + 12 * U32 * norms + 16 * d * TINY32) * SLACK, length * SLACK)


@cache
def hadamard_stages(d: int) -> np.ndarray:
    """Return the end of each Hadamard block and 1/√(block size), float64 [blocks, 2].

    Blocks have 256 entries; the last has a power of two ≥ 16 of them, since torch's product of width 1 is wrong.
    """
    sizes = [_BLOCK] * (d // _BLOCK)
    if d % _BLOCK:
        sizes.append(max(16, 1 << (d % _BLOCK - 1).bit_length()))
    return np.stack([np.cumsum(sizes, dtype=np.float64), np.array(sizes, dtype=np.float64) ** -0.5], axis=1)


@cache
def rotation_signs(d: int) -> np.ndarray:
    """Return random signs ±1, float32 [d]; without them, a Hadamard matrix maps a constant row to a single entry."""
    bits = np.random.default_rng(0).integers(0, 2, d)
    return (1 - 2 * bits).astype(np.float32)


def int8_error(x: Spread, y: Spread, d: int, bias: float = 0.0) -> Tensor:
    """Return ε_i ≥ |int8 score − exact score| for row i of x against every row of y.

    ⟨x, y⟩ − ⟨x̂, ŷ⟩ = ⟨Rx − x̂, Ry⟩ + ⟨x̂, Ry − ŷ⟩ ≤ residual_x ‖y‖ + ‖x̂‖ residual_y. The integer product is exact,
    and converting it to a score rounds four times (six times with a bias).
    """
    reach = x.length * y.length.max()
    epsilon = x.residual * y.norms.max() + x.length * y.residual.max() + 4 * U32 * reach + d * 2.0**-110
    if bias:
        epsilon = epsilon + 2.1 * U32 * (reach + bias)
    return epsilon * SLACK
