"""Console output and progress bars of the commands."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO

import typer

from sae_geometry.io.escaping import printable, shown
from sae_geometry.io.progress import Progress, progress_bars
from sae_geometry.io.redaction import without_secrets

_LONGEST = 1000  # maximum length of an error message, in characters


class Speaker:
    """Printer of notes and progress bars on stderr, silent if `quiet`."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def note(self, text: str) -> None:
        """Print a note on stderr."""
        if not self.quiet:
            say(without_secrets(text), err=True)

    def resolved(self, text: str) -> None:
        """Print an address and its resolved form, given as "typed → resolved", if they differ."""
        typed, _, found = text.partition(" → ")
        if typed != found:
            self.note(shown(text, _LONGEST))

    def bar(self) -> AbstractContextManager[Progress | None]:
        """Return a context manager that yields a progress callback, or None if quiet or if stderr is not a terminal."""
        return nullcontext() if self.quiet or not sys.stderr.isatty() else progress_bars()


def say(text: str, *, err: bool = False) -> None:
    """Print text with control and invisible characters escaped."""
    typer.echo(printable(text), err=err)


def say_answer(text: str, headline: str) -> None:
    """Print text, with the line `headline` in bold on a color terminal."""
    for line in printable(text).split("\n"):
        bold = bool(headline) and line == headline and _colorful(sys.stdout)
        typer.echo(typer.style(line, bold=True) if bold else line)


def say_error(text: str) -> None:
    """Print an error as one line on stderr, in red on a color terminal."""
    line = f"error: {shown(without_secrets(text), _LONGEST)}"
    typer.secho(line, fg=typer.colors.RED if _colorful(sys.stderr) else None, err=True)


def print_json(value: Any) -> None:
    """Print strict JSON on stdout."""
    from sae_geometry.results.store import to_json

    text = to_json(value)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    if not encoding.lower().replace("-", "").startswith("utf"):
        text = json.dumps(json.loads(text), indent=2)  # Escape characters that the encoding lacks.
    typer.echo(text)


def command_line() -> str:
    """Return the command as typed, without secrets, for provenance."""
    return without_secrets(shlex.join(["sae-geometry", *sys.argv[1:]]))


def _colorful(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ
