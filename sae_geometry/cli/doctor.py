"""`sae-geometry doctor`."""

from __future__ import annotations

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


@c.told_in_one_sentence
def doctor(as_json: c.AsJson = False) -> None:
    """Versions, device, which back ends would run and why, and whether the sweep is exact on this machine."""
    from sae_geometry.diagnosis import diagnose

    found = diagnose()
    if as_json:
        c.print_json(found)
    else:
        for section, entries in found.items():
            typer.echo(section)
            for key, value in entries.items():
                typer.echo(f"  {key:<16} {value}")
    if any(str(v).startswith("WRONG") for v in found["checks"].values()):
        c.say_error("a check failed: please open an issue with the table above")
        raise typer.Exit(c.FAILED)
