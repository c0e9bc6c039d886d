"""Handle the errors and signals of a command, and report each in one sentence with an exit code."""

from __future__ import annotations

import _thread
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec

import typer

from sae_geometry.cli.console import say, say_error
from sae_geometry.io.redaction import without_secrets
from sae_geometry.kernels.ledger import ledger

P = ParamSpec("P")

FAILED, WRONG_USE, UNDER = 1, 2, 3
INTERRUPTED, TERMINATED = 130, 143

_SOON = 0.02  # seconds before a signal lost in a finalizer or callback is resent
# _BOTH matches "drop_bad=True (--drop-bad)". _ARGUMENT matches "latents='all'", but not the address "::latent_axis=1".
_BOTH = re.compile(r"\b[a-z_]+(?:=[^\s(]+|\([^()]*\)) \((--[^)]+)\)")
_ARGUMENT = re.compile(r"(?<![:\w.\-])([a-z][a-z_]+)=(\"[^\"]*\"|'[^']*'|\d+|True|False)(?![\w.])")
_TORCH_OOM = re.compile("DefaultCPUAllocator|out of memory")
_FROM_ARRAY = re.compile(
    r"(?:call|pass the decoder to) sae_geometry\.Dictionary\.from_decoder\([^()]*?latent_axis=(\d|…)\), where "
    r"latent_axis is the axis that \w+ latents"
)


def report_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Decorate a command so that an error ends it with one line, or with a traceback if SAE_GEOMETRY_DEBUG=1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with ledger():
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say_error("stopped; no results folder was left half-written")
            raise typer.Exit(INTERRUPTED) from None
        except TerminatedError:
            say_error("stopped by SIGTERM; no results folder was left half-written")
            raise typer.Exit(TERMINATED) from None
        except Exception as error:
            if os.environ.get("SAE_GEOMETRY_DEBUG") == "1":
                trace = "".join(traceback.format_exception(error)).rstrip()
                say(without_secrets(trace), err=True)
            else:
                say_error(_sentence(error))
            raise typer.Exit(_exit_code(error)) from None

    return wrapped


def _sentence(error: Exception) -> str:
    from sae_geometry.distributed.errors import WorkerMemoryError

    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}"
    if isinstance(error, WorkerMemoryError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _TORCH_OOM.search(str(error))):
        return "out of memory; try --device cpu, or a machine with more memory"
    text = in_options(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, ValueError | OSError | ImportError):
        return text
    return f"{type(error).__name__}: {text} (this looks like a bug in sae-geometry; SAE_GEOMETRY_DEBUG=1 shows where)"


def in_options(text: str) -> str:
    """Translate the Python arguments in a message to command-line options."""
    text = _BOTH.sub(r"\1", text)
    text = _FROM_ARRAY.sub(_as_file, text)
    return _ARGUMENT.sub(lambda found: _option(found[1], found[2].strip("\"'")), text)


def _as_file(found: re.Match[str]) -> str:
    """Translate advice to call `Dictionary.from_decoder` into advice for the command line."""
    if found[1] == "…":
        return "save only the decoder as .npy and give that file, with ::latent_axis=1 if its columns are latents"
    return f"save only the decoder as .npy and give that file with ::latent_axis={found[1]}, the axis of its latents"


def _option(argument: str, value: str) -> str:
    name = f"--{argument.replace('_', '-')}"
    return {"True": name, "False": f"no {name}"}.get(value, f"{name} {value}")


def _exit_code(error: Exception) -> int:
    from sae_geometry.sources.errors import AddressError, SourceError

    wrong_use = isinstance(error, ValueError | FileExistsError) and not isinstance(error, SourceError)
    return WRONG_USE if wrong_use or isinstance(error, AddressError) else FAILED


def require_at_least(limit: float | None, reached: float, what: str) -> None:
    """Exit with an error if the value `reached` is below the `limit` that --fail-under sets."""
    if limit is not None and not reached >= limit:
        say_error(f"{what} is {reached:.4f}, below --fail-under {limit}")
        raise typer.Exit(UNDER)


class TerminatedError(BaseException):
    """SIGTERM was received. Handlers of `Exception` and of `KeyboardInterrupt` do not catch this error."""


@contextmanager
def signals_are_heard() -> Iterator[None]:
    """Raise `TerminatedError` on SIGTERM within the context, as Python raises `KeyboardInterrupt` on SIGINT.

    Both signals are resent if Python ignores the exception, as in a finalizer. The previous handlers are restored on
    exit.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: _again(lost) or hook(lost)
    before = signal.getsignal(signal.SIGTERM)
    ours = before is signal.SIG_DFL  # Respect a handler set by the parent process or a test.
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
    """Resend the signal that caused an ignored exception; return False if no signal caused it."""
    number = {KeyboardInterrupt: signal.SIGINT, TerminatedError: signal.SIGTERM}.get(lost.exc_type)
    if number is None:
        return False
    # A `threading.Timer` would wait for its thread to start, and the next signal could arrive during that wait.
    _thread.start_new_thread(_send_soon, (number,))
    return True


def _send_soon(number: signal.Signals) -> None:
    time.sleep(_SOON)
    if hasattr(signal, "pthread_kill"):  # Only `pthread_kill` wakes a waiting main thread.
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)
