"""Run the tiles of sweeps, and whole pairs of dictionaries, on a Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from distributed import Client, Future

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.answer_check import check_pair_answer, check_tile
from sae_geometry.distributed.collect import Gathering, bytes_here
from sae_geometry.distributed.errors import NotLoadedError
from sae_geometry.distributed.operands import Held
from sae_geometry.distributed.pairs import Pair, Work, one_by_one
from sae_geometry.distributed.scheduler import Cluster, Job
from sae_geometry.distributed.worker import Device, arithmetic, blas_threads, call_with_pair, sweep_tile, wanted
from sae_geometry.kernels.ledger import Entry, enter
from sae_geometry.kernels.settings import current
from sae_geometry.kernels.tiles import LEAST, WORTH, Tile, cut, halves, pieces_for
from sae_geometry.kernels.types import ScreenName, Sweep, Task

T = TypeVar("T")
SMALLEST = 2e10  # number of multiplications below which a local sweep is faster (benchmarks/RESULTS_distributed.md)


class DaskRunner:
    """Runner of sweeps and pairs on a client's workers; `device="cpu"` restricts workers to their CPUs."""

    smallest, worth, least = SMALLEST, WORTH, LEAST

    def __init__(self, client: Client, *, device: Device = "auto", load: Sequence[Dictionary] = ()) -> None:
        self.client, self.device = client, device
        self._cluster, self._held = Cluster(client), Held(client, load)

    def close(self) -> None:
        """Release the operands that the workers hold for this client."""
        self._held.forget()

    def __call__(self, task: Task, screen: ScreenName) -> Sweep | None:
        """Run the sweep on the workers; return None if the sweep is too small or its results are too large."""
        if float(len(task.a)) * len(task.others) * task.a.shape[1] < self.smallest:
            return None
        start = time.perf_counter()
        workers = self._cluster.n_workers()
        pieces = pieces_for(len(task.a), workers, self.worth)
        tiles = cut(len(task.a), None if task.within else len(task.others), pieces, least=self.least)
        if task.memory_asked and bytes_here(task, tiles) > task.memory:
            return None
        together = 2 if task.column_bias is None else 3
        a = self._held.array(task.a, together)
        others = a if task.within else self._held.array(task.others, together)
        bias = None if task.column_bias is None else self._held.array(task.column_bias, together)
        found = Gathering(task)
        question = {
            "k": task.k,
            "columns": task.columns or task.within,
            "absolute": task.absolute,
            "screen": screen,
            "memory": task.memory if task.memory_asked else None,
            "device": wanted(self.device, task.a.device.type),
        }

        def submit(tile: Tile) -> Future:
            operands = a(), others(), tile, question, None if bias is None else bias()
            return self.client.submit(sweep_tile, *operands, pure=False)

        job = Job(submit, lambda tile: halves(tile, self.least), self._resend)
        for tile, answer in self._cluster.each(tiles, job):
            check_tile(task, tile, answer)
            found.take(tile, answer)
            if task.progress is not None:
                task.progress(found.share)
        return found.sweep(workers, time.perf_counter() - start)

    def pairs(
        self, work: Work[T], dictionaries: Sequence[Dictionary], todo: Sequence[Pair], parameters: Any
    ) -> Iterator[tuple[Pair, T]]:
        """Run whole pairs on the workers if there are enough pairs and the workers' float sums are bit-identical.

        Otherwise, and if a pair exceeds a worker's memory, the pair runs here with its sweeps split into tiles. The
        sweeps of the workers are entered into the ledger at the end, in the order of `todo`.
        """
        ours = arithmetic()
        if len(todo) < self._cluster.n_workers() or not self._cluster.all_are(arithmetic, ours, threads=1):
            yield from one_by_one(work, dictionaries, todo, parameters)
            return
        too_much: list[Pair] = []
        sweeps: dict[Pair, tuple[Entry, ...]] = {}
        there = cache(lambda at: self._held.dictionary(dictionaries[at]))
        threads = blas_threads()

        def submit(pair: Pair) -> Future:
            device = wanted(self.device, dictionaries[pair[0]].device.type)
            terms = {"memory": current().memory, "device": device, "blas_threads": threads, "arithmetic": ours}
            parts = [None if part is None else part() for at in pair for part in there(at)]
            return self.client.submit(call_with_pair, work, parameters, terms, *parts, pure=False)

        def smaller(pair: Pair) -> list[Pair]:
            too_much.append(pair)
            return []

        try:
            for pair, made in self._cluster.each(todo, Job(submit, smaller, self._resend, optional=True)):
                check_pair_answer(made)
                sweeps[pair] = made.sweeps
                yield pair, made.answer
        finally:
            for pair in todo:
                enter(sweeps.get(pair, ()))
        yield from one_by_one(work, dictionaries, too_much, parameters)

    def _resend(self, error: Exception) -> None:
        """Forget the operands on the workers, so that they are resent when needed."""
        if isinstance(error, NotLoadedError):
            self._held.load_no_more()
        else:
            self._held.forget()
