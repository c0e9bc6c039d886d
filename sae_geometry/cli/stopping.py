"""SIGTERM ends a command as Ctrl-C does: what was begun is undone, one sentence is said, the exit code is 143."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143


class TerminatedError(BaseException):
    """SIGTERM came. Not an `Exception`, and not Ctrl-C: nothing that means to go on after either may catch it."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """While this lasts SIGTERM raises `TerminatedError` in the main thread; as before after."""
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:  # whoever started us, or a test, has other plans
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError
