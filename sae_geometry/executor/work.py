"""What runs on a worker: one tile of a sweep, or one pair of dictionaries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.executor.arithmetic import arithmetic, own_version
from sae_geometry.executor.errors import UnlikeError
from sae_geometry.executor.joining import Sent, to_send
from sae_geometry.executor.placing import Device, placed, screen_on, want_of_memory_told, ways
from sae_geometry.kernels.blocks import CeilingError, memory_ceiling
from sae_geometry.kernels.ledger import Entry, entries, ledger
from sae_geometry.kernels.sweep import ScreenName, Sweep, SweepReport, cpu_threads, sweep
from sae_geometry.kernels.tiles import Tile

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
class Answer:
    """The lists of a tile's rows and columns, indices of the whole; how they were found; by which version."""

    rows: Sent
    cols: Sent | None
    report: SweepReport
    note: str
    version: str


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
    return Answer(to_send(found.rows, tile.cols[0]), cols, found.report, note, own_version())


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
