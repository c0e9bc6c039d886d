"""`sae-geometry inspect RUN`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, print_json
from sae_geometry.cli.lifecycle import told_in_one_sentence


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect")(inspect)


@told_in_one_sentence
def inspect(
    run: o.Run,
    latent_axis: Annotated[
        int | None,
        typer.Option("--latent-axis", min=0, max=1, help="Which axis of the stored decoder counts latents."),
    ] = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    offline: o.Offline = False,
) -> None:
    """What is at an address: layout, every tensor, every dictionary and how it would be read, alive latents, norms."""
    from sae_geometry.sources import inspect as look

    axis: Any = latent_axis
    found = look(run, latent_axis=axis, offline=offline, echo=Speaker(quiet).resolved)
    if as_json:
        record = asdict(found) | {"files": [str(f) for f in found.files], "metadata": dict(found.metadata)}
        print_json(record)
    else:
        typer.echo(str(found))
