"""What runs on a worker: one tile of a sweep, or one pair of dictionaries."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.decide import Best
from sae_geometry.kernels.sweep import ScreenName, SweepReport, cpu_threads, sweep
from sae_geometry.kernels.tiles import Tile

Sent = tuple[np.ndarray, np.ndarray]
"""The signed cosines (float64) and indices (int32) of lists: 12 bytes a partner; the score follows from them."""


@dataclass(frozen=True)
class Question:
    """What a sweep asks of every tile."""

    k: int
    columns: bool
    absolute: bool
    screen: ScreenName
    memory: int


@dataclass(frozen=True)
class Answer:
    """The lists of a tile's rows and columns, indices of the whole, and how they were found."""

    rows: Sent
    cols: Sent | None
    report: SweepReport


def sweep_tile(a: np.ndarray, b: np.ndarray, tile: Tile, question: Question, bias: np.ndarray | None) -> Answer:
    """Sweep one tile on this worker, on its GPU if it has one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = _tensor(a[slice(*tile.rows)]).to(device)
    y = None if tile.within else _tensor(b[slice(*tile.cols)]).to(device)
    found = sweep(
        x,
        y,
        question.k,
        columns=question.columns,
        absolute=question.absolute,
        column_bias=None if bias is None else _tensor(bias[slice(*tile.cols)]).to(device),
        screen=question.screen if device == "cpu" else "auto",
        threads=max(1, cpu_threads() // _tasks_at_once()),
        memory=question.memory,
    )
    cols = None if found.cols is None else _sent(found.cols, tile.rows[0])
    return Answer(_sent(found.rows, tile.cols[0]), cols, found.report)


def call_with_pair(
    work: Callable[[Dictionary, Dictionary, Any], Any],
    a: Dictionary,
    b: Dictionary,
    parameters: Any,
    blas_threads: int,
) -> Any:
    """`work` on two dictionaries, float sums made by as many threads as the client would use, so that none differs."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=blas_threads, user_api="blas"):
        return work(unpacked(a), unpacked(b), parameters)


def packed(d: Dictionary) -> Dictionary:
    """The same on the CPU, and picklable."""
    return replace(d.to("cpu"), metadata=dict(d.metadata))


def unpacked(d: Dictionary) -> Dictionary:
    """As it was before `packed`."""
    return replace(d, metadata=MappingProxyType(dict(d.metadata)))


def arithmetic() -> dict[str, Any]:
    """All that the last bit of a float sum depends on beside the number of threads: processor and libraries."""
    import llvmlite.binding
    import numba
    import scipy.linalg  # with it all that add up are loaded, here and there
    import threadpoolctl

    blas = [
        (x.get("internal_api"), x.get("version"), x.get("architecture"))
        for x in threadpoolctl.threadpool_info()
        if x.get("user_api") == "blas"
    ]
    return {
        "sae-geometry": _version(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": str(llvmlite.binding.get_host_cpu_name()),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "numba": numba.__version__,
        "blas": sorted(map(str, blas)),
    }


def _version() -> str:
    try:
        return version("sae-geometry")
    except PackageNotFoundError:
        return "not installed as a package"


def blas_threads() -> int:
    """Threads that numpy's BLAS uses in this process."""
    import threadpoolctl

    return max((x["num_threads"] for x in threadpoolctl.threadpool_info() if x.get("user_api") == "blas"), default=1)


def _tensor(x: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # arrays off the wire may be read-only; so are we
        return torch.from_numpy(np.ascontiguousarray(x))


def _sent(best: Best, start: int) -> Sent:
    index = best.index.cpu().numpy()
    return best.cosine.cpu().numpy(), np.where(index >= 0, index + start, -1).astype(np.int32)


def _tasks_at_once() -> int:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # called outside a worker
        return 1
