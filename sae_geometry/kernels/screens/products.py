"""float32 products of row blocks, at full precision and full speed.

torch can be configured, process-wide, to compute float32 products in TF32 or bfloat16, which would invalidate ε;
therefore, products here run under `full_precision`. On AMD processors, oneDNN takes less than half of MKL's time. The
same ε holds for both, so `cpu_product` times both and selects the faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from sae_geometry.kernels.loops.threads import one_torch_thread

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function of (x [r, d], y [c, d], scratch) that returns x·yᵀ, in scratch (r·c or more entries) or a new tensor."""

_PROBE_ROWS, _PROBE_WIDTH = 512, 512


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products in float32, without TF32 or bfloat16, and restore the settings on exit."""
    parts: list[Any] = [torch.backends, torch.backends.cuda, torch.backends.mkldnn]
    parts += [part.matmul for part in parts[1:] if hasattr(part, "matmul")]
    backends = [part for part in parts if hasattr(part, "fp32_precision")]
    saved = [part.fp32_precision for part in backends]
    try:
        for part in backends:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, value in zip(backends, saved, strict=True):
            part.fp32_precision = value


def mm_product(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    """Multiply with `torch.mm`, which uses the BLAS library that torch was built with."""
    out = scratch[: x.shape[0] * y.shape[0]].view(x.shape[0], y.shape[0])
    return torch.mm(x, y.T, out=out)


def onednn_product(x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    """Multiply with oneDNN's inner product, which allocates its result."""
    return torch.ops.mkldnn._linear_pointwise(x, y, None, "none", [], "")


@cache
def cpu_product() -> tuple[Product, str]:
    """Time the float32 products once per process; return the fastest that is correct on this machine, and its name."""
    x = torch.randn(_PROBE_ROWS, _PROBE_WIDTH, generator=torch.Generator().manual_seed(0)) / _PROBE_WIDTH**0.5
    scratch = torch.empty(_PROBE_ROWS * _PROBE_ROWS)
    truth = (x.double() @ x.double().T).float()
    best: tuple[float, Product, str] | None = None
    for product, name in ((mm_product, "torch.mm"), (onednn_product, "oneDNN")):
        try:
            with one_torch_thread(), full_precision():
                right = torch.allclose(product(x, x, scratch), truth, rtol=0, atol=1e-4)
                seconds = best_time(partial(product, x, x, scratch)) if right else float("inf")
        except (AttributeError, RuntimeError, NotImplementedError):  # This build of PyTorch lacks oneDNN.
            continue
        if best is None or seconds < 0.9 * best[0]:
            best = (seconds, product, name)
    assert best is not None
    return best[1], best[2]


def best_time(run: Callable[[], object]) -> float:
    """Return the shortest time of five runs, in CPU seconds of this thread, which other load barely affects."""
    found = float("inf")
    for _ in range(5):
        start = time.thread_time()
        run()
        found = min(found, time.thread_time() - start)
    return found
