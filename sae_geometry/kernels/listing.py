"""Sweep with long lists: without a memory limit, memory follows the size of the result."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sae_geometry.kernels.blocks import has_ceiling, memory_limit
from sae_geometry.kernels.sweep import Sweep, cpu_threads, sweep

_PER_ENTRY = 64  # bytes per listed pair while it is screened, re-scored and ordered
_PER_THREAD = 16  # bytes per listed pair in the lists of each thread


def listing_sweep(
    a: Tensor, b: Tensor | None, k: int, *, columns: bool = True, threads: int | None = None, **how: Any
) -> Sweep:
    """Run `sweep(a, b, k, …)`, refusing lists for their size only under a memory limit."""
    workers = threads or cpu_threads()
    if has_ceiling():
        return sweep(a, b, k, columns=columns, threads=workers, **how)
    entries = (a.shape[0] + (0 if b is None else b.shape[0])) * (k + 8)
    memory = memory_limit(None, a.device.type) + entries * (_PER_ENTRY + _PER_THREAD * workers)
    return sweep(a, b, k, columns=columns, threads=workers, memory=memory, **how)
