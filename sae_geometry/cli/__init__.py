"""The command line: one thin command a verb, calling the public functions and printing what they return.

A command parses, calls, prints. The result goes to stdout, everything else (what was resolved, progress, where files
are) to stderr. Heavy imports wait until a command runs.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from sae_geometry.cli import (
    agreement,
    cache,
    compare,
    demos,
    doctor,
    drift,
    estimate,
    explore,
    fetch,
    inspect,
    match,
    runs,
    seeds,
    span,
    split,
    umap,
    within,
)
from sae_geometry.cli.lifecycle import TERMINATED, TerminatedError, signals_are_heard

app = typer.Typer(
    name="sae-geometry",
    help="Did these two sparse autoencoders learn the same features? Exact geometric comparison of SAE dictionaries.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> bool:
    if asked:
        from sae_geometry import __version__

        typer.echo(f"sae-geometry {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Did these two sparse autoencoders learn the same features? Exact geometric comparison of SAE dictionaries."""


for command in (
    compare,
    match,
    within,
    seeds,
    agreement,
    span,
    split,
    umap,
    explore,
    drift,
    inspect,
    fetch,
    runs,
    cache,
    demos,
    estimate,
    doctor,
):
    command.register(app)


def main() -> None:
    """Entry point of the `sae-geometry` program."""
    for stream in (sys.stdout, sys.stderr):  # where the terminal has no ×, a ? is better than no answer
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with signals_are_heard():
            app()
    except TerminatedError:  # before a command had begun, or after it had ended
        raise SystemExit(TERMINATED) from None
