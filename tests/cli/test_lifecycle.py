"""Tests that a signal ends a command even when it arrives where Python ignores exceptions."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections.abc import Callable

import pytest

from sae_geometry.cli.lifecycle import TerminatedError, signals_are_heard


def from_a_callback(number: signal.Signals) -> None:
    """Raise the signal inside a callback from C."""
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(number))()


def from_a_finalizer(number: signal.Signals) -> None:
    """Raise the signal while an object is being deleted."""

    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(number)

    Dying()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("come", [from_a_callback, from_a_finalizer])
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TerminatedError)])
def test_no_signal_is_lost(
    come: Callable[[signal.Signals], None], number: signal.Signals, raised: type[BaseException]
) -> None:
    hook, handler = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
    ignored = []

    def command() -> None:
        come(number)
        ignored.append(number)  # The exception was ignored, or this line would not run.
        time.sleep(30)

    with pytest.raises(raised), signals_are_heard():
        command()
    assert ignored == [number]
    assert sys.unraisablehook is hook
    assert signal.getsignal(signal.SIGTERM) is handler


def test_other_ignored_exceptions_are_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))

    class Dying:
        def __del__(self) -> None:
            raise ValueError("as it is")

    with signals_are_heard():
        Dying()
    assert told == [ValueError]
