"""How a command ends: what it opened is closed, and what went wrong is one sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import typer

from sae_geometry.cli.console import say_error
from sae_geometry.io.redaction import without_secrets
from sae_geometry.kernels.ledger import ledger

P = ParamSpec("P")
T = TypeVar("T")

FAILED, WRONG_USE, UNDER = 1, 2, 3
INTERRUPTED, TERMINATED = 130, 143

_SOON = 0.02  # seconds, in which the finalizer or callback should be over; if it is not, the signal is sent once more
_AT_END: ContextVar[ExitStack] = ContextVar("what is closed when the command ends")


def told_in_one_sentence(command: Callable[P, None]) -> Callable[P, None]:
    """Decorator: what goes wrong is one red line and an exit code; a traceback only with SAE_GEOMETRY_DEBUG=1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with ExitStack() as at_end, ledger():
                _AT_END.set(at_end)
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say_error("stopped; no results folder is half-written")
            raise typer.Exit(INTERRUPTED) from None
        except TerminatedError:
            say_error("stopped by SIGTERM; no results folder is half-written")
            raise typer.Exit(TERMINATED) from None
        except Exception as error:
            if os.environ.get("SAE_GEOMETRY_DEBUG") == "1":
                trace = "".join(traceback.format_exception(error)).rstrip()
                typer.echo(without_secrets(trace), err=True)
                raise typer.Exit(_exit_code(error)) from None
            say_error(_sentence(error))
            raise typer.Exit(_exit_code(error)) from None

    return wrapped


def until_the_end(context: AbstractContextManager[T]) -> T:
    """Enter a context that lasts until the command has ended."""
    return _AT_END.get().enter_context(context)


def _sentence(error: Exception) -> str:
    from sae_geometry.distributed.errors import WorkerMemoryError

    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}"
    if isinstance(error, WorkerMemoryError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; try --device cpu, or a machine with more"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValueError | OSError | ImportError):
        return text
    return f"{type(error).__name__}: {text} (this looks like our mistake: SAE_GEOMETRY_DEBUG=1 shows where)"


def _exit_code(error: Exception) -> int:
    from sae_geometry.sources.errors import AddressError, SourceError

    if isinstance(error, AddressError):
        return WRONG_USE
    if isinstance(error, SourceError) or not isinstance(error, ValueError | FileExistsError):
        return FAILED
    return WRONG_USE


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
