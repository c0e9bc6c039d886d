"""The `sae-geometry demos` command."""

from __future__ import annotations

from dataclasses import asdict

from sae_geometry.cli import options as o
from sae_geometry.cli.console import print_json, say
from sae_geometry.io.formatting import wrap


def demos(as_json: o.AsJson = False) -> None:
    """List the dictionaries that come with the package."""
    from sae_geometry.sources import demos as all_demos

    records = all_demos()
    if as_json:
        print_json([asdict(r) for r in records])
        return
    width = max(len(r.address) for r in records)
    for r in records:
        line = f"{r.address:<{width}}  {r.n_latents:>5,} × {r.d_in}  {r.description}"
        say("\n".join(wrap(line, 80, subsequent_indent=" " * (width + 15))))
