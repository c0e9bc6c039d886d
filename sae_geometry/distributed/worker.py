"""Tasks that run on a worker: one tile of a sweep, or one pair of dictionaries."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.collect import TileAnswer, to_send
from sae_geometry.distributed.errors import EnvironmentMismatchError
from sae_geometry.kernels.blocks import CeilingError
from sae_geometry.kernels.ledger import Entry, entries
from sae_geometry.kernels.settings import Device, changed
from sae_geometry.kernels.sweep import cpu_threads, sweep
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.types import ScreenName, Sweep

NO_GPU = "on the CPU of workers that have no GPU"
_ALLOCATOR = "DefaultCPUAllocator"  # name of the allocator in PyTorch's out-of-memory errors
_WEIGHTS = ("directions", "encoder_directions")  # nearly all bytes of a dictionary


@dataclass(frozen=True)
class PairOutcome:
    """Result of comparing one pair, with the ledger entries of its sweeps."""

    answer: Any
    sweeps: tuple[Entry, ...]


def sweep_tile(
    a: np.ndarray, b: np.ndarray, tile: Tile, question: Mapping[str, Any], bias: np.ndarray | None
) -> TileAnswer:
    """Sweep one tile on this worker; raise CeilingError or MemoryError if it is too large.

    `question` holds the device and the arguments of `sweep`. If `memory` is None there, the worker's default applies.
    """
    device, note = placed(question["device"])
    own = None if bias is None else bias[slice(*tile.cols)]
    operands = [a[slice(*tile.rows)], None if tile.within else b[slice(*tile.cols)], own]
    with translate_oom():
        found = _swept([None if x is None else _tensor(x) for x in operands], question, device)
    cols = None if found.cols is None else to_send(found.cols, tile.rows[0])
    return TileAnswer(to_send(found.rows, tile.cols[0]), cols, found.report, note, own_version())


def _swept(operands: Sequence[torch.Tensor | None], question: Mapping[str, Any], device: str) -> Sweep:
    """Run the sweep with the first device and number of threads that fit the memory."""
    refused: CeilingError | None = None
    how = {name: value for name, value in question.items() if name != "device"}
    for where, threads in ways(device, max(1, cpu_threads() // _tasks_at_once())):
        x, y, bias = (None if t is None else t.to(where) for t in operands)
        how |= {"threads": threads, "screen": screen_on(where, question["screen"])}
        try:
            return sweep(x, y, column_bias=bias, **how)  # type: ignore[arg-type]
        except CeilingError as error:
            refused = error
    assert refused is not None
    raise refused


def call_with_pair(
    work: Callable[[Dictionary, Dictionary, Any], Any], parameters: Any, terms: Mapping[str, Any], *parts: Any
) -> PairOutcome:
    """Run `work(a, b, parameters)` under the client's settings, so that results are bit-identical.

    `terms` are the client's memory, device, blas_threads and arithmetic. `parts` are the arguments of `put_together`,
    three per dictionary. A worker whose float sums would differ raises EnvironmentMismatchError.
    """
    from threadpoolctl import threadpool_limits

    if _tasks_at_once() != 1 or arithmetic() != terms["arithmetic"]:
        raise EnvironmentMismatchError
    device, note = placed(terms["device"])
    with (
        translate_oom(),
        threadpool_limits(limits=terms["blas_threads"], user_api="blas"),
        changed(memory=terms["memory"], sweeps={}),
    ):
        a, b = (put_together(*parts[at : at + 3]).to(device) for at in (0, 3))
        answer = work(a, b, parameters)
        why = "; ".join(["in whole pairs on Dask workers", *([note] if note else [])])
        return PairOutcome(answer, tuple(replace(entry, why=f"{why}; {entry.why}") for entry in entries()))


def all_but_weights(d: Dictionary) -> dict[str, Any]:
    """Return all attributes of a dictionary except its weights."""
    return {f.name: getattr(d, f.name) for f in fields(d) if f.name not in _WEIGHTS}


def put_together(directions: np.ndarray, encoder: np.ndarray | None, rest: dict[str, Any]) -> Dictionary:
    """Rebuild a dictionary from its weights and other attributes."""
    encoder_directions = None if encoder is None else _tensor(encoder)
    return Dictionary(directions=_tensor(directions), encoder_directions=encoder_directions, **rest)


def _tensor(x: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Received arrays may be read-only; nothing writes to them.
        return torch.from_numpy(np.ascontiguousarray(x))


def _tasks_at_once() -> int:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # The code does not run on a Dask worker.
        return 1


def wanted(asked: Device, here: str) -> Device:
    """Return the device to request from workers, given the user's choice and the operands' device here.

    Example:
        >>> wanted("auto", "cpu"), wanted("auto", "cuda"), wanted("cpu", "cuda"), wanted("mps", "cpu")
        ('auto', 'cuda', 'cpu', 'cpu')
    """
    if asked in ("cpu", "mps"):
        return "cpu"
    return "cuda" if here == "cuda" else asked


def placed(asked: Device) -> tuple[str, str]:
    """Return the device on which this worker runs a task that requests `asked`, and a note ("" if none)."""
    if asked != "cpu" and torch.cuda.is_available():
        return "cuda", ""
    return "cpu", NO_GPU if asked == "cuda" else ""


def screen_on(device: str, screen: ScreenName) -> ScreenName:
    """Return the requested screen, or "auto" if it does not run on that device.

    Example:
        >>> screen_on("cpu", "int8"), screen_on("cuda", "int8"), screen_on("cpu", "triton"), screen_on("cuda", "fp16")
        ('int8', 'auto', 'auto', 'fp16')
    """
    elsewhere = screen.startswith("triton") if device == "cpu" else screen in ("cpu", "int8")
    return "auto" if elsewhere else screen


def ways(device: str, threads: int) -> Iterator[tuple[str, int]]:
    """Yield devices and numbers of threads to try until the memory suffices: the GPU, if any, then fewer CPU threads.

    Example:
        >>> list(ways("cuda", 6))
        [('cuda', 6), ('cpu', 6), ('cpu', 3), ('cpu', 1)]
    """
    if device != "cpu":
        yield device, threads
    while threads:
        yield "cpu", threads
        threads //= 2


@contextmanager
def translate_oom() -> Iterator[None]:
    """Translate PyTorch's out-of-memory errors to `MemoryError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or _ALLOCATOR in str(error):
            raise MemoryError(str(error)) from None
        raise


def arithmetic() -> dict[str, Any]:
    """Return the processor and library versions, on which (besides threads) the last bits of a float sum depend."""
    import llvmlite.binding
    import numba
    import scipy.linalg  # This loads all BLAS libraries.
    import threadpoolctl

    blas = [
        (x.get("internal_api"), x.get("version"), x.get("architecture"))
        for x in threadpoolctl.threadpool_info()
        if x.get("user_api") == "blas"
    ]
    return {
        "sae-geometry": own_version(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": str(llvmlite.binding.get_host_cpu_name()),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "numba": numba.__version__,
        "blas": sorted(map(str, blas)),
    }


def blas_threads() -> int:
    """Return the number of threads of numpy's BLAS in this process."""
    import threadpoolctl

    return max((x["num_threads"] for x in threadpoolctl.threadpool_info() if x.get("user_api") == "blas"), default=1)


def own_version() -> str:
    """Return the version of this package, or "not installed as a package"."""
    try:
        return version("sae-geometry")
    except PackageNotFoundError:
        return "not installed as a package"
