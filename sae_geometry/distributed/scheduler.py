"""The workers that a client reaches, and what becomes of the pieces of work that are given to them.

Dask schedules. What is ours is to know what a lost piece means: a worker that dies takes the pieces it was at, and Dask
gives them to another; data that only it held is sent again; a piece that is too much for a worker comes back as smaller
ones; a scheduler that is gone, or workers that do not come back, end the work in one sentence.
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
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distributed import Future
from distributed.scheduler import KilledWorker

from sae_geometry.distributed.errors import ClusterError, NotLoadedError, UnlikeError, WorkerMemoryError, lost
from sae_geometry.kernels.blocks import CeilingError

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
_GRACE = 5  # seconds for a scheduler to come back
_NO_WORKERS = 60  # seconds for a first worker to come back
_LOOK = 5.0  # seconds after which workers are counted again
_TRIES = 5  # of a piece whose operands were lost, or whose worker died over the smallest piece there is
_SUSPECT = 2  # times a piece is lost before it is taken to be too much, and cut
_IN_FLIGHT = 2  # pieces a worker, so that none waits for its next, and few are suspected when one dies


@dataclass(frozen=True)
class Job(Generic[T]):
    """How pieces of work are given out.

    Attributes:
        submit: sends a piece.
        smaller: what a piece is cut into when it was too much for a worker; [] if it cannot be.
        resend: called when what the workers held is gone, or cannot be loaded there.
        optional: whether a piece that is too much and cannot be cut is left out, rather than an error.
    """

    submit: Callable[[T], Future]
    smaller: Callable[[T], list[T]]
    resend: Callable[[Exception], None]
    optional: bool = False


@dataclass(frozen=True)
class _Flight(Generic[T]):
    """Pieces that wait, pieces that are out, each with how often it was tried, and what has come back of the latter."""

    waiting: deque[tuple[T, int]]
    out: dict[Future, tuple[T, int]] = field(default_factory=dict)
    done: SimpleQueue[Future] = field(default_factory=SimpleQueue)

    def watch(self, future: Future, piece: T, tries: int) -> None:
        """Count a piece as out, and be told when it is done."""
        self.out[future] = (piece, tries)
        future.add_done_callback(self.done.put)

    def put_first(self, pieces: Sequence[tuple[T, int]]) -> None:
        """Let these be sent next, in this order."""
        self.waiting.extendleft(reversed(pieces))


class Cluster:
    """A client's workers.

    Args:
        client: a `distributed.Client`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._address = str(client.scheduler.address) if client.scheduler is not None else "its address"

    def n_workers(self) -> int:
        """How many there are, at least one: it may be on its way."""
        return max(1, len(self._or_lost(self._client.nthreads)))

    def all_are(self, what: Callable[[], Any], expected: Any, threads: int) -> bool:
        """Whether `what()` is `expected` on every worker, and each works on so many pieces at once."""
        found = self._or_lost(lambda: self._client.run(what, on_error="return"))
        at_once = self._or_lost(self._client.nthreads)
        return all(value == expected for value in found.values()) and set(at_once.values()) <= {threads}

    def each(self, pieces: Sequence[T], job: Job[T]) -> Iterator[tuple[T, Any]]:
        """Every piece and its answer as it comes, or those of the smaller pieces it was cut into.

        Raises:
            ClusterError: the scheduler is gone, or the workers are.
            CeilingError, MemoryError: the smallest piece is too much.
        """
        flight = _Flight[T](deque((piece, 1) for piece in pieces))
        window, counted = 0, -math.inf
        try:
            while flight.waiting or flight.out:
                if time.monotonic() - counted > _LOOK:  # others may have come
                    window, counted = _IN_FLIGHT * self.n_workers(), time.monotonic()
                self._send(flight, job, window)
                if flight.out:
                    yield from self._take(flight, job)
        finally:
            with suppress(Exception):  # a scheduler that is gone has nothing to cancel
                self._client.cancel(list(flight.out))

    def _send(self, flight: _Flight[T], job: Job[T], window: int) -> None:
        """Send pieces until `window` of them are out."""
        while flight.waiting and len(flight.out) < window:
            piece, tries = flight.waiting.popleft()
            try:
                future = job.submit(piece)
            except Exception as error:  # a worker died as it was sent something
                flight.put_first(self._again(piece, tries, error, job))
                continue
            flight.watch(future, piece, tries)

    def _take(self, flight: _Flight[T], job: Job[T]) -> Iterator[tuple[T, Any]]:
        """The next piece that is done, and its answer; nothing if it has none, and something else is to be tried."""
        future = self._next(flight.done)
        piece, tries = flight.out.pop(future)
        try:
            answer = future.result(timeout=_NO_WORKERS)
        except TimeoutError:  # done, and lost with its worker before it came here: done again, if there is anybody
            flight.watch(future, piece, tries)
        except (MemoryError, CeilingError, KilledWorker, UnlikeError) as error:
            flight.put_first(self._cut(piece, tries, error, job))
        except (CancelledError, NotLoadedError) as error:  # the only copy of its operands was lost, or everything
            flight.put_first(self._again(piece, tries, error, job))
        else:
            future.release()
            yield piece, answer

    def _next(self, done: SimpleQueue[Future]) -> Future:
        """The next that is done, whatever came of it; raises when there has been nobody to do it for too long."""
        until = None
        while True:
            try:
                return done.get(timeout=_LOOK)
            except Empty:
                if self._or_lost(self._client.nthreads):
                    until = None
                    continue
                until = until or time.monotonic() + _NO_WORKERS
                if time.monotonic() > until:
                    raise ClusterError(
                        f"no worker is left at {self._address}; start some and run the same command"
                    ) from None

    def _cut(self, piece: T, tries: int, error: Exception, job: Job[T]) -> list[tuple[T, int]]:
        """What to try in place of a piece that was too much; raises where nothing is left to try."""
        parts = job.smaller(piece)
        if parts or job.optional:
            return [(part, 1) for part in parts]
        if isinstance(error, CeilingError):
            raise error
        if isinstance(error, KilledWorker) and tries < _TRIES:  # it may have died of its other piece
            return [(piece, tries + 1)]
        raise WorkerMemoryError(
            "a worker ran out of memory, or died, over the smallest piece of work; give the workers more memory"
        ) from None

    def _again(self, piece: T, tries: int, error: Exception, job: Job[T]) -> list[tuple[T, int]]:
        """What to send anew, operands too, for a piece that was lost; raises if the scheduler is gone, or it is of no
        use.
        """
        self._still_there()
        job.resend(error)
        if tries >= _SUSPECT:  # it may be what its workers die of, and the only copy of its operands with them
            parts = job.smaller(piece)
            if parts or job.optional:
                return [(part, 1) for part in parts]
        if tries == _TRIES:
            if not isinstance(error, OSError | CancelledError | NotLoadedError):
                raise error
            raise ClusterError(f"the workers at {self._address} are lost as fast as they come back") from error
        time.sleep(0.1 * tries)
        return [(piece, tries + 1)]

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
        while self._client.status != "running":
            if time.monotonic() > until or self._client.status == "closed":
                raise lost(self._address) from None
            time.sleep(0.1)
        try:
            self._client.sync(self._client.scheduler.identity, callback_timeout=_GRACE)
        except Exception:
            raise lost(self._address) from None
