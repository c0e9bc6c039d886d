"""The `sae-geometry explore` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, say


def explore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Results folder of sae-geometry umap or flow.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="HTML file to write. [default: explorer.html in DIR]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn a saved UMAP or flow into one interactive HTML file with hover, search, filters, lasso and partners.

    The file is self-contained and needs no network. To open it at a latent, add #run=NAME&latent=ID to its address.
    """
    import sae_geometry as sg

    written = sg.explore(folder, out, overwrite=overwrite)
    Speaker(quiet).note(
        f"one HTML file of {written.stat().st_size / 1e6:.1f} MB: open it in a browser, or send it to a colleague"
    )
    say(f"saved to {written}")
