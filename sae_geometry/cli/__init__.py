"""Command line: one thin command per verb, which calls the public functions and prints their results.

A command parses, calls and prints. Results go to stdout, everything else (resolved addresses, progress, paths) to
stderr. Heavy imports are deferred until a command runs.
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
    flow,
    inspect,
    match,
    nearest,
    project,
    runs,
    seeds,
    span,
    split,
    tokens,
    truth,
    umap,
    within,
)
from sae_geometry.cli.help import EXAMPLES, Program, Question
from sae_geometry.cli.lifecycle import TERMINATED, TerminatedError, signals_are_heard

app = typer.Typer(
    name="sae-geometry",
    cls=Program,
    help="Did these two sparse autoencoders learn the same directions? Exact geometric comparison of SAE dictionaries.",
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
    """Did these two sparse autoencoders learn the same directions? Exact geometric comparison of SAE dictionaries."""


for command in (
    compare,
    match,
    nearest,
    within,
    seeds,
    agreement,
    span,
    split,
    flow,
    truth,
    tokens,
    umap,
    project,
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
    _name = command.__name__.rpartition(".")[2]
    app.command(_name, cls=Question, epilog=f"Example: sae-geometry {EXAMPLES[_name]}" if _name in EXAMPLES else None)(
        getattr(command, _name)
    )


def main() -> None:
    """Run the `sae-geometry` program."""
    for stream in (sys.stdout, sys.stderr):  # print ? for characters the terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with signals_are_heard():
            app()
    except TerminatedError:  # before a command began, or after it ended
        raise SystemExit(TERMINATED) from None
