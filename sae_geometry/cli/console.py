"""Where a command's words go, and the bars of long work."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from sae_geometry.io.progress import Progress
from sae_geometry.io.redaction import without_secrets


class Speaker:
    """Where a command's words go: results to stdout, the rest to stderr unless quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def note(self, text: str) -> None:
        """Say something on stderr."""
        if not self.quiet:
            typer.echo(without_secrets(text), err=True)

    def say(self, text: str, *, unless: bool) -> None:
        """Say something of the result on stdout, unless that carries JSON."""
        if not unless:
            typer.echo(text)

    def resolved(self, text: str) -> None:
        """Say what an address was resolved to ("typed → resolved"), unless it says nothing new."""
        typed, _, found = text.partition(" → ")
        if typed != found:
            self.note(text)

    @contextmanager
    def bar(self) -> Iterator[Progress | None]:
        """A progress callback that draws bars on stderr, or None where stderr is no terminal or we are quiet."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        ) as progress:  # fmt: skip
            tasks: dict[str, TaskID] = {}

            def tick(stage: str, share: float) -> None:
                name = stage.partition(" · ")[0]  # what follows changes as it goes: the gap, say
                if name not in tasks:
                    tasks[name] = progress.add_task(stage, total=1.0)
                progress.update(tasks[name], completed=share, description=stage)

            yield tick


def say_error(text: str) -> None:
    """One line on stderr, red on a terminal."""
    typer.secho(f"error: {without_secrets(text)}", fg=typer.colors.RED if _colorful() else None, err=True)


def print_json(value: Any) -> None:
    """Strict JSON on stdout."""
    from sae_geometry.results.store import to_json

    text = to_json(value)
    if not _says_everything():
        text = json.dumps(json.loads(text), indent=2)  # \u escapes
    typer.echo(text)


def command_line() -> str:
    """The command as typed, for provenance."""
    return without_secrets(shlex.join(["sae-geometry", *sys.argv[1:]]))


def _says_everything() -> bool:
    """Whether stdout takes every character."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")


def _colorful() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
