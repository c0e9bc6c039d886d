"""Limits on the memory and CPU time of a block, so that a bomb fails a test and not the machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEGABYTES = 400
SECONDS = 5.0


class TooLongError(BaseException):
    """Raised after the time limit; not an Exception, so that no reader takes it for a damaged file."""


def _too_long(*_: Any) -> None:
    raise TooLongError


@contextmanager
def limited(megabytes: int = MEGABYTES, seconds: float = SECONDS) -> Iterator[None]:
    """Raise `MemoryError` or `TooLongError` if the block takes more, on systems where limits can be set."""
    try:
        import resource
    except ImportError:  # Windows
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), hard))
    handler = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
