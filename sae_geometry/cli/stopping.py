"""Ctrl-C and SIGTERM end a command alike: what was begun is undone, one sentence is said, the exit code is 130 or 143.

And neither is lost: Python ignores what is raised in a finalizer or a callback from C (the list of loaded libraries is
made in one), a signal's exception too. It is sent again then.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED, TERMINATED = 130, 143
_SOON = 0.02  # seconds, in which the finalizer or callback should be over; if it is not, the signal is sent once more


class TerminatedError(BaseException):
    """SIGTERM came. Not an `Exception`, and not Ctrl-C: nothing that means to go on after either may catch it."""


@contextmanager
def signals_are_heard() -> Iterator[None]:
    """While this lasts SIGTERM raises `TerminatedError` in the main thread, as SIGINT does `KeyboardInterrupt`, and
    neither is lost where Python ignores exceptions; as before after.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: _again(lost) or hook(lost)
    before = signal.getsignal(signal.SIGTERM)
    ours = before is signal.SIG_DFL  # otherwise whoever started us, or a test, has other plans
    if ours:
        signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if ours:
            signal.signal(signal.SIGTERM, before)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError


def _again(lost: Any) -> bool:
    """Send a signal once more whose exception was ignored; whether that was what was ignored."""
    number = {KeyboardInterrupt: signal.SIGINT, TerminatedError: signal.SIGTERM}.get(lost.exc_type)
    if number is None:
        return False
    timer = threading.Timer(_SOON, _send, (number,))
    timer.daemon = True
    timer.start()
    return True


def _send(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes a main thread that waits
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)
