"""Sweeps and pairs on a Dask cluster: cut here, done there, merged here in whatever order they come back.

Dask schedules. What is ours is to know what a lost piece means: a worker that dies takes the tiles it was at, and Dask
gives them to another; data that only it held is sent again; a tile that does not fit a worker's memory is cut in
halves; a scheduler that is gone ends the work in one sentence.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from distributed import Future, as_completed
from distributed.scheduler import KilledWorker

from sae_geometry.dictionary import Dictionary
from sae_geometry.executor.errors import ClusterError, lost
from sae_geometry.executor.spreading import Pair
from sae_geometry.executor.work import (
    Answer,
    Question,
    Sent,
    arithmetic,
    blas_threads,
    call_with_pair,
    packed,
    sweep_tile,
)
from sae_geometry.kernels.decide import Best
from sae_geometry.kernels.merging import Lists, merge_into, no_lists
from sae_geometry.kernels.screen import Task
from sae_geometry.kernels.sweep import ScreenName, Sweep, SweepReport
from sae_geometry.kernels.tiles import Tile, cut, halves

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
SMALLEST = 2e9  # multiplications below which a sweep is done here sooner than sent
WORTH = 2e10  # multiplications for which a tile of its own pays: each prepares its operands anew
_TILES_A_WORKER = 4
_PAIRS_A_WORKER = 2  # in flight, so that none waits for its next
_LEAST = 256  # rows of a tile
_MOST = 32_768  # rows of a tile: what is lost with a worker, and what a worker must hold lists of
_KEPT = 1 << 30  # bytes of operands that stay on the workers for the next sweep
_GRACE = 5  # seconds for a scheduler to come back
_TRIES = 5  # of a piece whose operands were lost


class DaskRunner:
    """Takes sweeps and pairs for a client.

    Args:
        client: a `distributed.Client`.
        smallest: sweeps of fewer multiplications stay in this process.
        worth: multiplications below which a worker's share is not cut further; 0 always cuts it.
        least: rows below which no tile is cut.
    """

    def __init__(
        self, client: Client, *, smallest: float = SMALLEST, worth: float = WORTH, least: int = _LEAST
    ) -> None:
        self.client, self.smallest, self.worth, self.least = client, smallest, worth, least
        self._address = str(client.scheduler.address) if client.scheduler is not None else "its address"
        self._held: dict[str, tuple[Future, int]] = {}
        self._alike: dict[str, bool] = {}

    def close(self) -> None:
        """Let the workers forget what they hold for us."""
        self._held.clear()

    def __call__(self, task: Task, screen: ScreenName) -> Sweep | None:
        """The whole sweep on the workers; None if it is too small to send."""
        a, others, bias = _array(task.a), _array(task.others), None
        n, m = a.shape[0], others.shape[0]
        if float(n) * m * a.shape[1] < self.smallest:
            return None
        start = time.perf_counter()
        if task.column_bias is not None:
            bias = _array(task.column_bias)
        two_sided = task.columns or task.within
        question = Question(task.k, two_sided, task.absolute, screen, task.memory)
        rows = no_lists(n, task.k)
        cols = rows if task.within else no_lists(m, task.k)
        reports: list[SweepReport] = []
        workers = self._n_workers()
        worthwhile = int(float(n) * m * a.shape[1] / self.worth) if self.worth else _TILES_A_WORKER * workers
        pieces = max(min(worthwhile, _TILES_A_WORKER * workers), workers, -(-n // _MOST))
        todo = cut(n, None if task.within else m, pieces, least=self.least)
        done, total = 0.0, sum(tile.pairs for tile in todo)

        def submit(tile: Tile) -> Future:
            x = self._hold(a)
            y = x if task.within else self._hold(others)
            return self.client.submit(sweep_tile, x, y, tile, question, bias, pure=False)

        def take(tile: Tile, answer: Answer) -> None:
            nonlocal done
            merge_into(rows, _lists(answer.rows, task.absolute, bias), tile.rows[0])
            if answer.cols is not None:
                merge_into(cols, _lists(answer.cols, task.absolute, None), tile.cols[0])
            reports.append(answer.report)
            done += tile.pairs
            if task.progress is not None:
                task.progress(done / total)

        for tile, answer in self._each(todo, submit, lambda tile: halves(tile, self.least), window=len(todo)):
            take(tile, answer)
        report = self._report(task, reports, workers, time.perf_counter() - start)
        device = task.a.device
        there = None if task.within or not task.columns else _best(cols, device)
        return Sweep(_best(rows, device), there, report)

    def pairs(
        self,
        work: Callable[[Dictionary, Dictionary, Any], T],
        dictionaries: Sequence[Dictionary],
        todo: Sequence[Pair],
        parameters: Any,
    ) -> Iterator[tuple[Pair, T]]:
        """Whole pairs on the workers, where there are enough of them and their float sums are ours to the bit.

        Otherwise, and where a pair is too much for a worker, the pair is done here, its sweeps cut into tiles.
        """
        if len(todo) < self._n_workers() or not self._same_arithmetic():
            for i, j in todo:
                yield (i, j), work(dictionaries[i], dictionaries[j], parameters)
            return
        too_large: list[Pair] = []
        threads = blas_threads()

        def submit(pair: Pair) -> Future:
            a, b = (self._hold(dictionaries[at]) for at in pair)
            return self.client.submit(call_with_pair, work, a, b, parameters, threads, pure=False)

        def smaller(pair: Pair) -> list[Pair]:
            too_large.append(pair)
            return []

        yield from self._each(todo, submit, smaller, window=_PAIRS_A_WORKER * self._n_workers(), optional=True)
        for i, j in too_large:
            yield (i, j), work(dictionaries[i], dictionaries[j], parameters)

    def _each(
        self,
        pieces: Sequence[T],
        submit: Callable[[T], Future],
        smaller: Callable[[T], list[T]],
        *,
        window: int,
        optional: bool = False,
    ) -> Iterator[tuple[T, Any]]:
        """Every piece and its answer as it comes, at most `window` in flight; pieces may come back as smaller ones.

        With `optional` a piece that fails for want of memory and has no smaller ones is left out.
        """
        queue = deque((piece, 1) for piece in pieces)
        flying: dict[Future, tuple[T, int]] = {}
        landed = as_completed(loop=self.client.loop)
        try:
            while queue or flying:
                while queue and len(flying) < window:
                    piece, tries = queue.popleft()
                    try:
                        future = submit(piece)
                    except Exception as error:  # a worker died as it was sent something
                        self._try_again(queue, piece, tries, error)
                        continue
                    flying[future] = (piece, tries)
                    landed.add(future)
                future = next(landed)
                piece, tries = flying.pop(future)
                try:
                    answer = future.result()
                except (MemoryError, KilledWorker):
                    parts = smaller(piece)
                    if not parts and not optional:
                        raise MemoryError(
                            "a worker ran out of memory, or died, over the smallest piece of work; give the workers "
                            "more memory"
                        ) from None
                    queue.extendleft((part, 1) for part in reversed(parts))
                except CancelledError as error:  # the only copy of the operands was lost, or the scheduler
                    self._try_again(queue, piece, tries, error)
                else:
                    future.release()
                    yield piece, answer
        finally:
            for future in flying:
                future.cancel()

    def _try_again(self, queue: deque[tuple[T, int]], piece: T, tries: int, error: Exception) -> None:
        """Put a piece that was lost back, its operands to be sent anew; raise if the scheduler is gone, or it is of no
        use.
        """
        self._still_there()
        self._held.clear()
        if tries == _TRIES:
            raise ClusterError(f"the workers at {self._address} are lost as fast as they come back") from error
        time.sleep(0.1 * tries)
        queue.appendleft((piece, tries + 1))

    def _hold(self, what: np.ndarray | Dictionary) -> Future:
        """Where the workers have this array or dictionary: sent once, by its fingerprint, to all of them."""
        if isinstance(what, Dictionary):
            name, size = what.fingerprint, 4 * what.directions.numel()
        else:
            name, size = hashlib.sha256(what.data).hexdigest() + str(what.shape), what.nbytes
        if name in self._held and self._held[name][0].status == "finished":
            self._held[name] = self._held.pop(name)  # the last asked for is forgotten last
            return self._held[name][0]
        key = f"sae-geometry-{name[:16]}-{uuid.uuid4().hex[:8]}"
        data = packed(what) if isinstance(what, Dictionary) else what
        future: Future = self.client.scatter({key: data}, broadcast=True)[key]
        self._held[name] = (future, size)
        while len(self._held) > 2 and sum(size for _, size in self._held.values()) > _KEPT:
            del self._held[next(iter(self._held))]
        return future

    def _or_lost(self, step: Callable[[], T]) -> T:
        """A step with the cluster; what goes wrong because the scheduler is gone is said as that."""
        try:
            return step()
        except Exception:
            self._still_there()
            raise

    def _still_there(self) -> None:
        """Raise unless the scheduler answers, after a moment for it to come back."""
        until = time.monotonic() + _GRACE
        while self.client.status != "running":
            if time.monotonic() > until or self.client.status == "closed":
                raise lost(self._address) from None
            time.sleep(0.1)
        try:
            self.client.sync(self.client.scheduler.identity, callback_timeout=_GRACE)
        except Exception:
            raise lost(self._address) from None

    def _n_workers(self) -> int:
        return max(1, len(self._or_lost(self.client.nthreads)))

    def _same_arithmetic(self) -> bool:
        """Whether every worker there is adds up as this process does, one task at a time."""
        ours = arithmetic()
        for worker, theirs in self._or_lost(lambda: self.client.run(arithmetic)).items():
            self._alike[worker] = theirs == ours
        return all(self._alike.values()) and set(self._or_lost(self.client.nthreads).values()) == {1}

    def _report(self, task: Task, reports: list[SweepReport], workers: int, seconds: float) -> SweepReport:
        first = reports[0]
        return SweepReport(
            screen=", ".join(sorted({r.screen for r in reports})),
            why=f"{len(reports)} tiles on {workers} Dask workers; {first.why}",
            device=", ".join(sorted({r.device for r in reports})),
            n_rows=task.a.shape[0],
            n_cols=task.others.shape[0],
            d_in=task.a.shape[1],
            k=task.k,
            epsilon=max(r.epsilon for r in reports),
            rows_redone=sum(r.rows_redone for r in reports),
            cols_redone=sum(r.cols_redone for r in reports),
            seconds=round(seconds, 4),
            blocks=first.blocks,
            threads=first.threads,
            audit=first.audit,
        )


def _array(x: torch.Tensor) -> np.ndarray:
    return x.detach().cpu().contiguous().numpy()


def _lists(sent: Sent, absolute: bool, bias: np.ndarray | None) -> Lists:
    """Lists as they were on the worker: the score made anew by the operations that made it there."""
    cosine, index = sent[0], sent[1].astype(np.int64)
    score = np.abs(cosine) if absolute else cosine.copy()
    if bias is not None:
        score = score - bias[index]
    return np.where(index >= 0, score, -np.inf), cosine, index


def _best(lists: Lists, device: torch.device) -> Best:
    return Best(*(torch.from_numpy(x).to(device) for x in lists))
