"""What runs on a worker: one tile of a sweep, or one pair of dictionaries."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.collect import Answer, to_send
from sae_geometry.distributed.errors import UnlikeError
from sae_geometry.kernels.blocks import CeilingError, memory_ceiling
from sae_geometry.kernels.ledger import Entry, entries, ledger
from sae_geometry.kernels.sweep import cpu_threads, sweep
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.types import ScreenName, Sweep

Device = Literal["auto", "cpu", "cuda", "mps"]
NO_GPU = "on a GPU here, on the CPU where a worker has none"
_ALLOCATOR = "DefaultCPUAllocator"  # how torch names who could not give it memory
_WEIGHTS = ("directions", "encoder_directions")  # of a dictionary: nearly all of its bytes


@dataclass(frozen=True)
class Question:
    """What a sweep asks of every tile. `memory` is None where nobody set a ceiling: the worker's default holds."""

    k: int
    columns: bool
    absolute: bool
    screen: ScreenName
    memory: int | None
    device: Device


@dataclass(frozen=True)
class Terms:
    """The client's, which a worker keeps to with a whole pair: ceiling, device, threads of BLAS, arithmetic."""

    memory: int | None
    device: Device
    blas_threads: int
    arithmetic: dict[str, Any]


@dataclass(frozen=True)
class PairAnswer:
    """What came of a pair, and the sweeps that were made for it."""

    answer: Any
    sweeps: tuple[Entry, ...]


def sweep_tile(a: np.ndarray, b: np.ndarray, tile: Tile, question: Question, bias: np.ndarray | None) -> Answer:
    """Sweep one tile on this worker.

    Raises:
        CeilingError: it does not fit the memory ceiling, on one thread either.
        MemoryError: the worker has too little memory.
    """
    device, note = placed(question.device)
    own = None if bias is None else bias[slice(*tile.cols)]
    x, y = a[slice(*tile.rows)], None if tile.within else b[slice(*tile.cols)]
    with want_of_memory_told():
        found = _swept(x, y, own, question, device)
    cols = None if found.cols is None else to_send(found.cols, tile.rows[0])
    return Answer(to_send(found.rows, tile.cols[0]), cols, found.report, note)


def _swept(
    x: np.ndarray, y: np.ndarray | None, bias: np.ndarray | None, question: Question, device: str
) -> Sweep:  # fmt: skip
    """The sweep, in the first way that keeps to the memory."""
    refused: CeilingError | None = None
    for where, threads in ways(device, max(1, cpu_threads() // _tasks_at_once())):
        try:
            return sweep(
                _tensor(x).to(where),
                None if y is None else _tensor(y).to(where),
                question.k,
                columns=question.columns,
                absolute=question.absolute,
                column_bias=None if bias is None else _tensor(bias).to(where),
                screen=screen_on(where, question.screen),
                threads=threads,
                memory=question.memory,
            )
        except CeilingError as error:
            refused = error
    assert refused is not None
    raise refused


def call_with_pair(
    work: Callable[[Dictionary, Dictionary, Any], Any], parameters: Any, terms: Terms, *parts: Any
) -> PairAnswer:
    """`work` on two dictionaries, on the client's terms, so that nothing differs.

    Args:
        work: called with the dictionaries and `parameters`.
        parameters: its third argument.
        terms: see there.
        parts: of the first dictionary and of the second, three each: what `put_together` takes.

    Raises:
        UnlikeError: this worker adds up otherwise than the client.
        MemoryError: the worker has too little memory.
    """
    from threadpoolctl import threadpool_limits

    if _tasks_at_once() != 1 or arithmetic() != terms.arithmetic:
        raise UnlikeError
    device, note = placed(terms.device)
    ceiling = nullcontext() if terms.memory is None else memory_ceiling(terms.memory)
    with want_of_memory_told(), threadpool_limits(limits=terms.blas_threads, user_api="blas"), ceiling, ledger():
        a, b = (put_together(*parts[at : at + 3]).to(device) for at in (0, 3))
        answer = work(a, b, parameters)
        return PairAnswer(answer, tuple(_told(entry, note) for entry in entries()))


def weights_of(d: Dictionary) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Decoder and encoder directions: what travels, or is loaded, once."""
    return d.directions, d.encoder_directions


def all_but_weights(d: Dictionary) -> dict[str, Any]:
    """Everything else that a dictionary is, picklable."""
    rest = {f.name: getattr(d, f.name) for f in fields(d) if f.name not in _WEIGHTS}
    return rest | {"metadata": dict(d.metadata)}


def put_together(directions: np.ndarray, encoder: np.ndarray | None, rest: dict[str, Any]) -> Dictionary:
    """A dictionary from its weights and all else."""
    return Dictionary(
        directions=_tensor(directions),
        encoder_directions=None if encoder is None else _tensor(encoder),
        **rest | {"metadata": MappingProxyType(rest["metadata"])},
    )


def _told(entry: Entry, note: str) -> Entry:
    return replace(entry, why="; ".join(["in whole pairs on Dask workers", *([note] if note else []), entry.why]))


def _tensor(x: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # arrays off the wire may be read-only; so are we
        return torch.from_numpy(np.ascontiguousarray(x))


def _tasks_at_once() -> int:
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # called outside a worker
        return 1


def wanted(asked: Device, here: str) -> Device:
    """What workers are asked for: by the user, or else by where the operands lie here ("cpu", "cuda").

    Example:
        >>> from sae_geometry.distributed.worker import wanted
        >>> wanted("auto", "cpu"), wanted("auto", "cuda"), wanted("cpu", "cuda"), wanted("mps", "cpu")
        ('auto', 'cuda', 'cpu', 'cpu')
    """
    if asked in ("cpu", "mps"):
        return "cpu"
    return "cuda" if here == "cuda" else asked


def placed(asked: Device) -> tuple[str, str]:
    """The device of this worker for work that asks for `asked`, and what the report must say of it ("": nothing)."""
    if asked != "cpu" and torch.cuda.is_available():
        return "cuda", ""
    return "cpu", NO_GPU if asked == "cuda" else ""


def screen_on(device: str, screen: ScreenName) -> ScreenName:
    """The screen asked for, or "auto" where it does not run on that device.

    Example:
        >>> from sae_geometry.distributed.worker import screen_on
        >>> screen_on("cpu", "int8"), screen_on("cuda", "int8"), screen_on("cpu", "triton"), screen_on("cuda", "fp16")
        ('int8', 'auto', 'auto', 'fp16')
    """
    elsewhere = screen.startswith("triton") if device == "cpu" else screen in ("cpu", "int8")
    return "auto" if elsewhere else screen


def ways(device: str, threads: int) -> Iterator[tuple[str, int]]:
    """Devices and threads to try one after another until one keeps to the memory: a GPU, then fewer CPU threads.

    Example:
        >>> from sae_geometry.distributed.worker import ways
        >>> list(ways("cuda", 6))
        [('cuda', 6), ('cpu', 6), ('cpu', 3), ('cpu', 1)]
    """
    if device != "cpu":
        yield device, threads
    while threads:
        yield "cpu", threads
        threads //= 2


@contextmanager
def want_of_memory_told() -> Iterator[None]:
    """Every way in which torch says that memory is short is a `MemoryError` outside."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or _ALLOCATOR in str(error):
            raise MemoryError(str(error)) from None
        raise


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


def blas_threads() -> int:
    """Threads that numpy's BLAS uses in this process."""
    import threadpoolctl

    return max((x["num_threads"] for x in threadpoolctl.threadpool_info() if x.get("user_api") == "blas"), default=1)


def _version() -> str:
    try:
        return version("sae-geometry")
    except PackageNotFoundError:
        return "not installed as a package"
