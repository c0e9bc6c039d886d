"""The sweep with room for long lists: where nobody set a ceiling, memory follows what is to be kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sae_geometry.kernels.blocks import has_ceiling, memory_limit
from sae_geometry.kernels.sweep import Sweep, cpu_threads, sweep

_PER_ENTRY = 64  # bytes a listed pair may take on its way to a result: screened, re-scored, ordered
_PER_THREAD = 16  # and in each thread's own lists


def listing_sweep(
    a: Tensor, b: Tensor | None, k: int, *, columns: bool = True, threads: int | None = None, **how: Any
) -> Sweep:
    """`sweep(a, b, k, …)` that refuses lists for their size only under a `memory_ceiling`: they are to be kept."""
    workers = threads or cpu_threads()
    return sweep(a, b, k, columns=columns, threads=workers, memory=listing_memory(a, b, k, workers), **how)


def listing_memory(a: Tensor, b: Tensor | None, k: int, threads: int | None = None) -> int | None:
    """The bytes that `listing_sweep` lets itself take; None under a `memory_ceiling`, which then holds."""
    if has_ceiling():
        return None
    entries = (a.shape[0] + (0 if b is None else b.shape[0])) * (k + 8)
    return memory_limit(None, a.device.type) + entries * (_PER_ENTRY + _PER_THREAD * (threads or cpu_threads()))
