"""The `sae-geometry fetch` command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, print_json, say


def fetch(
    run: o.Run,
    force: Annotated[bool, typer.Option("--force", help="Download every file again, even if it is cached.")] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    offline: o.Offline = False,
) -> None:
    """Download a checkpoint's files, verify them, and print their paths; damaged files are downloaded again.

    W&B files go to $SAE_GEOMETRY_CACHE (see `sae-geometry cache`), Hugging Face files to Hugging Face's own cache.
    """
    import sae_geometry as sg

    speaker = Speaker(quiet)
    with speaker.bar() as progress:
        files = sg.fetch(run, force=force, echo=speaker.note, progress=progress)
    if as_json:
        print_json([{**asdict(f), "path": str(f.path)} for f in files])
        return
    for f in files:
        say(f"{f.path}  {f.n_bytes:,} bytes  sha256 {f.sha256}")
