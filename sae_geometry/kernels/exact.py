"""Exact inner products of float32 rows, rounded once to float64: the scores of a sweep.

Sums are taken by halving (element t plus element t + h, with h half the width) with Knuth's error-free two-sum, and the
errors are added at the end. The bits are the same on every device. README.md bounds the difference from `math.fsum`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22


def exact_dots(
    x: Float32[Tensor, "n d"], y: Float32[Tensor, "m d"], rows: Int64[Tensor, " pairs"], cols: Int64[Tensor, " pairs"]
) -> Float64[Tensor, " pairs"]:
    """Return the exact inner product ⟨x[rows[p]], y[cols[p]]⟩ of every pair p, rounded once to float64.

    Raises:
        IndexError: a row or column is out of range (compiled code would read beyond the end).
    """
    if x.device.type == "cpu":
        for index, size in ((rows, x.shape[0]), (cols, y.shape[0])):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise IndexError(f"indices must be in 0…{size - 1}; got {int(index.min())}…{int(index.max())}")
        from sae_geometry.kernels.loops.cpu import exact_dots_loop  # Importing numba takes 0.3 s.

        out = np.empty(rows.shape[0], dtype=np.float64)
        exact_dots_loop(x.numpy(), y.numpy(), rows.numpy(), cols.numpy(), out)
        return torch.from_numpy(out)
    return torch_exact_dots(x, y, rows, cols)


def torch_exact_dots(
    x: Float32[Tensor, "n d"], y: Float32[Tensor, "m d"], rows: Int64[Tensor, " pairs"], cols: Int64[Tensor, " pairs"]
) -> Float64[Tensor, " pairs"]:
    """Compute `exact_dots` with torch alone, on any device, in the same order of operations and to the same bits."""
    step = max(1, _CHUNK_ELEMENTS // x.shape[1])
    parts = [
        _halving_sum(x[rows[i : i + step]].to(torch.float64) * y[cols[i : i + step]].to(torch.float64))
        for i in range(0, rows.shape[0], step)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64, device=x.device)


def _halving_sum(s: Float[Tensor, "pairs d"]) -> Float[Tensor, " pairs"]:
    e = torch.zeros_like(s)
    width = s.shape[1]
    while width > 1:
        h = (width + 1) // 2
        pairs = width - h
        a, b = s[:, :pairs], s[:, h:width]
        r = a + b
        t = r - a
        error = (a - (r - t)) + (b - t)
        e = torch.cat([(e[:, :pairs] + e[:, h:width]) + error, e[:, pairs:h]], dim=1)
        s = torch.cat([r, s[:, pairs:h]], dim=1)
        width = h
    return s[:, 0] + e[:, 0]
