"""`sae-geometry inspect RUN`."""

from __future__ import annotations

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect")(inspect)


@c.told_in_one_sentence
def inspect(run: c.Run, as_json: c.AsJson = False, quiet: c.Quiet = False, offline: c.Offline = False) -> None:
    """What is at an address: layout, shapes, where in which model, which latents are alive, raw decoder norms."""
    from sae_geometry.describe import describe_input
    from sae_geometry.sources import load

    speaker = c.Speaker(quiet)
    dictionary = load(run, "all", offline=offline, echo=speaker.resolved)
    if as_json:
        c.print_json(describe_input(dictionary))
    else:
        typer.echo(repr(dictionary))
