"""Proven bounds ε on the distance of a screened score from the exact one; README.md has the derivations."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

U32 = 2.0**-24  # half the spacing of float32 numbers at 1
TINY32 = 2.0**-126  # the smallest normal float32; below it, results may be flushed to zero
SLACK = 1 + 1e-6  # covers the float64 rounding of the bounds themselves
_CHUNK_ELEMENTS = 1 << 20


def gamma(d: int) -> float:
    """Return γ_d = d·u/(1 − d·u): a float32 sum of d terms errs by at most γ_d Σ|terms|, in any order, fused or not.

    Higham, Accuracy and Stability of Numerical Algorithms (2002), §3.1 and §4.2.
    """
    if d >= 1 << 23:
        raise ValueError(f"rows of width {d:,} are too long for float32 sums; the bound needs less than {1 << 23:,}")
    return d * U32 / (1 - d * U32)


def row_norms(x: Tensor) -> Float64[Tensor, " n"]:
    """Return Euclidean norms in float64, computed a few rows at a time through one buffer.

    One buffer, because small results allocated between large temporaries fragment the heap: that has cost as much
    memory as a float64 copy of all rows.
    """
    step = min(len(x), max(1, _CHUNK_ELEMENTS // x.shape[1]))
    out = torch.empty(len(x), dtype=torch.float64, device=x.device)
    wide = torch.empty((step, x.shape[1]), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        torch.linalg.vector_norm(wide[: len(part)].copy_(part), dim=1, out=out[start : start + step])
    return out


def float32_error(norms: Float64[Tensor, " n"], largest: float, d: int, bias: float = 0.0) -> Float64[Tensor, " n"]:
    """Return ε_i ≥ |float32 score − exact score| of row i with any column, given its norm and the largest column norm.

    γ_d ‖x‖‖y‖ for the product, (1 + ‖x‖ + ‖y‖) d·2⁻¹²⁴ for entries, products and sums that underflow or are flushed
    to zero, and, where the largest absolute bias is not 0, the rounding of the bias and of the subtraction.
    """
    reach = norms * largest
    epsilon = gamma(d) * reach + d * 2.0**-124 * (1 + norms + largest)
    if bias:
        epsilon = epsilon + 2.1 * U32 * (reach + bias)
    return epsilon * SLACK
