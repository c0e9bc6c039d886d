"""A few threads over a list of pieces: all of it done, or the first error raised with no thread left behind.

And torch's own threads, which would fight with these, kept to one meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch

Worker = Callable[[threading.Event], Callable[[Any], None]]
"""Makes what one thread needs of its own, and returns what it does with a piece; it may look at the event to stop."""


def in_parallel(worker: Worker, pieces: Iterable[Any], threads: int) -> None:
    """Have up to `threads` workers take the pieces in order; the caller's own thread if that is one.

    An error in any of them, or an interrupt of the caller, stops the others at their next piece and is raised.
    """
    queue = deque(pieces)
    stop = threading.Event()

    def drain() -> None:
        work = worker(stop)
        while not stop.is_set():
            try:
                piece = queue.popleft()
            except IndexError:
                return
            work(piece)

    threads = min(threads, len(queue))
    if threads <= 1:
        drain()
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting = {pool.submit(drain) for _ in range(threads)}
            while waiting:  # waking now and then, so that an interrupt is heard
                done, waiting = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        finally:
            stop.set()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch uses one thread inside, and as many as before after. Threads started inside must say so for themselves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
