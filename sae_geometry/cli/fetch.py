"""`sae-geometry fetch RUN`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, print_json
from sae_geometry.cli.lifecycle import told_in_one_sentence


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fetch")(fetch)


@told_in_one_sentence
def fetch(run: o.Run, as_json: o.AsJson = False, quiet: o.Quiet = False, offline: o.Offline = False) -> None:
    """Bring a checkpoint's files here, whole and verified, and say where they are.

    W&B files go to $SAE_GEOMETRY_CACHE (see `sae-geometry cache`), Hugging Face files to its own cache.
    """
    import sae_geometry as sg

    speaker = Speaker(quiet)
    with speaker.bar() as progress:
        files = sg.fetch(run, offline=offline, echo=speaker.note, progress=progress)
    if as_json:
        print_json([{**asdict(f), "path": str(f.path)} for f in files])
        return
    for f in files:
        typer.echo(f"{f.path}  {f.n_bytes:,} bytes  sha256 {f.sha256}")
