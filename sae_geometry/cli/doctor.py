"""`sae-geometry doctor`."""

from __future__ import annotations

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


@c.told_in_one_sentence
def doctor(as_json: c.AsJson = False) -> None:
    """Versions, device, whether the sweep is exact on this machine, and its rate beside the device's limit.

    On a machine with a CUDA GPU the reference suite runs there. What is printed is Markdown, to paste into an issue.
    """
    from sae_geometry.diagnosis import diagnose

    found = diagnose()
    if as_json:
        c.print_json(found.to_dict())
    else:
        typer.echo(found.markdown())
    if not found.is_right:
        c.say_error("a check failed: please open an issue with the text above")
        raise typer.Exit(c.FAILED)
