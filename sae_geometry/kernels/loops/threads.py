"""Parallel execution of pieces of work on a few threads, each with one torch thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch

Worker = Callable[[threading.Event], Callable[[Any], None]]
"""Function that prepares a thread and returns a function that processes one piece; the event requests a stop."""


def in_parallel(worker: Worker, pieces: Iterable[Any], threads: int) -> None:
    """Process the pieces in order on up to `threads` threads, or on the caller's thread if one is enough.

    An error in a worker, or an interrupt of the caller, stops all workers at their next piece and is then raised; no
    thread is left running.
    """
    queue = deque(pieces)
    stop = threading.Event()

    def drain() -> None:
        torch.set_num_threads(1)
        work = worker(stop)
        while not stop.is_set():
            try:
                piece = queue.popleft()
            except IndexError:
                return
            work(piece)

    threads = min(threads, len(queue))
    if threads <= 1:
        with one_torch_thread():
            drain()
        return
    with one_torch_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            waiting = {pool.submit(drain) for _ in range(threads)}
            while waiting:  # Wake up regularly, so that an interrupt is handled.
                done, waiting = wait(waiting, timeout=0.1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        finally:
            stop.set()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread and restore its thread count on exit; threads started inside are not limited."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
