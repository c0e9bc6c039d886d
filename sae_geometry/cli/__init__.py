"""The command line, a thin layer over the public functions.

Results go to stdout; everything else (resolved addresses, progress, paths) goes to stderr. Heavy imports are deferred
until a command runs.
"""

from __future__ import annotations

import io
import sys
from importlib import import_module
from typing import Annotated

import typer

from sae_geometry.cli.commands import COMMANDS
from sae_geometry.cli.help import Program, Question
from sae_geometry.cli.lifecycle import TERMINATED, TerminatedError, report_errors, signals_are_heard

app = typer.Typer(
    name="sae-geometry",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from sae_geometry import __version__

        typer.echo(f"sae-geometry {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Did these two sparse autoencoders learn the same directions? Exact geometric comparison of SAE dictionaries."""


for _commands in COMMANDS.values():
    for _name, (_, _example) in _commands.items():
        _command = getattr(import_module(f"sae_geometry.cli.{_name}"), _name)
        _epilog = f"Example: sae-geometry {_name} {_example}".rstrip()
        app.command(_name, cls=Question, epilog=_epilog)(report_errors(_command))


def main() -> None:
    """Run the `sae-geometry` program."""
    for stream in (sys.stdout, sys.stderr):  # Print ? for characters that the stream cannot encode.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with signals_are_heard():
            app()
    except TerminatedError:  # The signal came before the command started or after it returned.
        raise SystemExit(TERMINATED) from None
