"""Operands for tensor cores: rows rounded to fp16 or tf32 before the product, with the measured rounding error.

A single-pass tf32 product truncates its operands; operands that already fit tf32 lose nothing more. fp16 rows are
scaled by 2⁷ first, which keeps the small entries of unit rows out of fp16's coarse subnormal range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_geometry.kernels.error_bounds import SLACK
from sae_geometry.kernels.types import Precision

FP16_SCALE = 2.0**7
_FP16_LARGEST = 65504.0
_TF32_DROPPED_BITS = 13
_CHUNK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Rounded:
    """Rounded rows x̂ = values / scale, with bounds on their norm and their error.

    values: fp16 or float32 [n, d]; residual: float64 [n] ≥ ‖x − x̂‖; length: float64 [n] ≥ ‖x̂‖.
    """

    values: Tensor
    scale: float
    residual: Tensor
    length: Tensor


def rounded(x: Tensor, precision: Precision) -> Rounded:
    """Round float32 rows to a given precision, and measure their norms and rounding errors."""
    scale = FP16_SCALE if precision == "fp16" else 1.0
    low, high = (float(v) for v in torch.aminmax(x))
    if precision == "fp16" and max(-low, high) * scale > _FP16_LARGEST:
        raise ValueError(f"entries above {_FP16_LARGEST / FP16_SCALE:.0f} do not fit the fp16 screen; use float32")
    values = x
    if precision != "float32":
        values = torch.empty(x.shape, dtype=torch.float16 if precision == "fp16" else x.dtype, device=x.device)
    step = max(1, _CHUNK_ELEMENTS // x.shape[1])
    residual = torch.empty(len(x), dtype=torch.float64, device=x.device)
    length = torch.empty_like(residual)
    for start in range(0, len(x), step):  # Work in chunks, so that no temporary is as large as x.
        part = slice(start, start + step)
        if precision != "float32":
            values[part] = x[part] * scale if precision == "fp16" else to_tf32(x[part])
        hat = values[part].to(torch.float64).div_(scale)
        length[part] = torch.linalg.vector_norm(hat, dim=1)
        residual[part] = torch.linalg.vector_norm(hat.sub_(x[part]), dim=1)
    return Rounded(values, scale, residual * SLACK, length * SLACK)


def to_tf32(x: Tensor) -> Tensor:
    """Round float32 numbers to tf32 (ten explicit mantissa bits, ties to even) by integer arithmetic."""
    bits = x.contiguous().view(torch.int32)
    half = (1 << (_TF32_DROPPED_BITS - 1)) - 1
    odd = (bits >> _TF32_DROPPED_BITS) & 1
    return ((bits + half + odd) & ~((1 << _TF32_DROPPED_BITS) - 1)).view(torch.float32)


def rounded_error(x: Rounded, y: Rounded, y_norms: Tensor, d: int) -> Tensor:
    """Return ε_i ≥ |screened − exact| of row i of x with every row of y, without a bias.

    ⟨x, y⟩ − ⟨x̂, ŷ⟩ = ⟨x − x̂, y⟩ + ⟨x̂, y − ŷ⟩, and each term is at most the product of its norms. Tensor cores add
    with truncation and a few guard bits; d·2⁻²² ‖x̂‖‖ŷ‖, four times the bound of rounded sums, allows for that.
    """
    product = x.length * y.length.max()
    return (x.residual * y_norms.max() + x.length * y.residual.max() + d * 2.0**-22 * product + d * 2.0**-110) * SLACK
