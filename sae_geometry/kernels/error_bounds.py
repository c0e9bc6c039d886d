"""Proven bounds ε on the error of a screened score; README.md has the derivations."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

U32 = 2.0**-24  # unit roundoff of float32
TINY32 = 2.0**-126  # the smallest normal float32; smaller results may be flushed to zero
SLACK = 1 + 1e-6  # factor that covers the float64 rounding of the bounds themselves
_CHUNK_ELEMENTS = 1 << 20


def gamma(d: int) -> float:
    """Return γ_d = d·u/(1 − d·u): a float32 sum of d terms, in any order, is within γ_d Σ|terms| of the exact sum.

    This holds with and without fused multiply-add (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1
    and §4.2).
    """
    if d >= 1 << 23:
        raise ValueError(f"rows of width {d:,} are too wide for float32 sums; the width must be below {1 << 23:,}")
    return d * U32 / (1 - d * U32)


def row_norms(x: Tensor) -> Float64[Tensor, " n"]:
    """Return the Euclidean norms of rows in float64, computed a few rows at a time through one buffer.

    Small results that are allocated between large temporaries would fragment the heap by as much as a copy of x.
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

    ε_i is γ_d ‖x‖‖y‖ for the product, plus (1 + ‖x‖ + ‖y‖) d·2⁻¹²⁴ for entries, products and sums that underflow or are
    flushed to zero, plus the rounding of the bias and of its subtraction if `bias`, the largest |bias|, is not 0.
    """
    reach = norms * largest
    epsilon = gamma(d) * reach + d * 2.0**-124 * (1 + norms + largest)
    if bias:
        epsilon = epsilon + 2.1 * U32 * (reach + bias)
    return epsilon * SLACK
