"""Submit tasks to a client's workers, and recover from failures.

Dask schedules tasks and reassigns those of a worker that dies. This module resends data that only the dead worker had,
splits a task that exceeds a worker's memory, and raises ClusterError if the scheduler is lost or no workers come back.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from sae_geometry.distributed.errors import (
    ClusterError,
    EnvironmentMismatchError,
    NotLoadedError,
    WorkerMemoryError,
    lost,
)
from sae_geometry.kernels.blocks import CeilingError

T = TypeVar("T")
_GRACE = 5  # seconds to wait for a lost scheduler to come back
_NO_WORKERS = 60  # seconds to wait for workers to come back
_LOOK = 5.0  # seconds between counts of the workers
_TRIES = 5  # maximum attempts at a task that lost its operands or its worker
_SUSPECT = 2  # losses after which a task is presumed too large and split
_IN_FLIGHT = 2  # tasks in flight per worker: enough to keep it busy, and few to suspect if it dies


@dataclass(frozen=True)
class Job(Generic[T]):
    """Functions that submit, split and retry the tasks of one computation.

    Attributes:
        smaller: returns the parts of a task that exceeds a worker's memory, or [] if it cannot be split.
        resend: called if operands on the workers are lost or cannot be loaded there.
        optional: whether to skip a task that is too large and cannot be split, instead of raising.
    """

    submit: Callable[[T], Future]
    smaller: Callable[[T], list[T]]
    resend: Callable[[Exception], None]
    optional: bool = False


@dataclass
class _Flight(Generic[T]):
    """Waiting, submitted and completed tasks, with the number of attempts at each."""

    waiting: deque[tuple[T, int]]
    out: dict[Future, tuple[T, int]] = field(default_factory=dict)
    done: SimpleQueue[Future] = field(default_factory=SimpleQueue)

    def watch(self, future: Future, piece: T, tries: int) -> None:
        """Register a submitted task and a callback for its completion."""
        self.out[future] = (piece, tries)
        future.add_done_callback(self.done.put)

    def put_first(self, pieces: Sequence[tuple[T, int]]) -> None:
        """Put tasks at the front of the queue, in the given order."""
        self.waiting.extendleft(reversed(pieces))


class Cluster:
    """Workers of a Dask client, to which tasks are submitted."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._address = str(client.scheduler.address) if client.scheduler is not None else "its address"

    def n_workers(self) -> int:
        """Return the number of workers, but at least 1, since a worker may be starting."""
        return max(1, len(self._or_lost(self._client.nthreads)))

    def all_are(self, what: Callable[[], Any], expected: Any, threads: int) -> bool:
        """Return whether `what()` equals `expected` on every worker, and each worker runs `threads` tasks at once."""
        found = self._or_lost(lambda: self._client.run(what, on_error="return"))
        at_once = self._or_lost(self._client.nthreads)
        return all(value == expected for value in found.values()) and set(at_once.values()) <= {threads}

    def each(self, pieces: Sequence[T], job: Job[T]) -> Iterator[tuple[T, Any]]:
        """Yield each completed task with its answer; a task that was split is replaced by its parts.

        Raises:
            ClusterError: the scheduler or all workers were lost.
            CeilingError, MemoryError: the smallest task exceeds a worker's memory.
        """
        flight = _Flight[T](deque((piece, 1) for piece in pieces))
        window, counted = 0, -math.inf
        try:
            while flight.waiting or flight.out:
                if time.monotonic() - counted > _LOOK:  # Workers may have joined.
                    window, counted = _IN_FLIGHT * self.n_workers(), time.monotonic()
                self._send(flight, job, window)
                if flight.out:
                    yield from self._take(flight, job)
        finally:
            with suppress(Exception):  # If the scheduler is gone, there is nothing to cancel.
                self._client.cancel(list(flight.out))

    def _send(self, flight: _Flight[T], job: Job[T], window: int) -> None:
        while flight.waiting and len(flight.out) < window:
            piece, tries = flight.waiting.popleft()
            try:
                future = job.submit(piece)
            except Exception as error:  # A worker died during a transfer.
                flight.put_first(self._again(piece, tries, error, job))
                continue
            flight.watch(future, piece, tries)

    def _take(self, flight: _Flight[T], job: Job[T]) -> Iterator[tuple[T, Any]]:
        """Yield the next completed task with its answer, or nothing if it failed and was requeued."""
        future = self._next(flight.done)
        piece, tries = flight.out.pop(future)
        try:
            answer = future.result(timeout=_NO_WORKERS)
        except TimeoutError:  # The worker died before the transfer. Retry if workers remain.
            flight.watch(future, piece, tries)
        except (MemoryError, CeilingError, KilledWorker, EnvironmentMismatchError) as error:
            flight.put_first(self._cut(piece, tries, error, job))
        except (CancelledError, NotLoadedError) as error:  # The operands on the workers were lost.
            flight.put_first(self._again(piece, tries, error, job))
        else:
            future.release()
            yield piece, answer

    def _next(self, done: SimpleQueue[Future]) -> Future:
        """Return the next completed or failed task; raise if there have been no workers for too long."""
        until = None
        while True:
            try:
                return done.get(timeout=_LOOK)
            except Empty:
                if self._or_lost(lambda: self._client.nthreads(callback_timeout=_NO_WORKERS)):
                    until = None
                    continue
                until = until or time.monotonic() + _NO_WORKERS
                if time.monotonic() > until:
                    raise ClusterError(
                        f"no workers are left at {self._address}; start some and rerun the command"
                    ) from None

    def _cut(self, piece: T, tries: int, error: Exception, job: Job[T]) -> list[tuple[T, int]]:
        """Return the parts that replace a task that was too large; raise if it cannot be split further."""
        parts = job.smaller(piece)
        if parts or job.optional:
            return [(part, 1) for part in parts]
        if isinstance(error, CeilingError):
            raise error
        if isinstance(error, KilledWorker) and tries < _TRIES:  # Another task may have killed the worker.
            return [(piece, tries + 1)]
        raise WorkerMemoryError(
            "a worker ran out of memory or died during the smallest possible task; give the workers more memory"
        ) from None

    def _again(self, piece: T, tries: int, error: Exception, job: Job[T]) -> list[tuple[T, int]]:
        """Return the tasks to resubmit for a lost task; raise if the scheduler is lost or retries are exhausted."""
        self._still_there()
        job.resend(error)
        if tries >= _SUSPECT:  # The task itself may kill the workers that hold its operands.
            parts = job.smaller(piece)
            if parts or job.optional:
                return [(part, 1) for part in parts]
        if tries == _TRIES:
            if not isinstance(error, OSError | CancelledError | NotLoadedError):
                raise error
            raise ClusterError(f"the workers at {self._address} die each time they return; see their logs") from error
        time.sleep(0.1 * tries)
        return [(piece, tries + 1)]

    def _or_lost(self, step: Callable[[], T]) -> T:
        """Run a cluster operation; if it fails because the scheduler is lost, raise ClusterError."""
        try:
            return step()
        except Exception:
            self._still_there()
            raise

    def _still_there(self) -> None:
        """Raise ClusterError if the scheduler does not respond within a few seconds."""
        until = time.monotonic() + _GRACE
        while self._client.status != "running":
            if time.monotonic() > until or self._client.status == "closed":
                raise lost(self._address) from None
            time.sleep(0.1)
        try:
            self._client.sync(self._client.scheduler.identity, callback_timeout=_GRACE)
        except Exception:
            raise lost(self._address) from None
