"""The `sae-geometry inspect` command."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, print_json, say


def inspect(
    run: o.Run,
    latent_axis: o.LatentAxis = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    offline: o.Offline = False,
) -> None:
    """Show what an address contains (layout, tensors, dictionaries, alive latents, norms) and how it would be read."""
    from sae_geometry.sources import inspect as look

    axis: Any = latent_axis
    found = look(run, latent_axis=axis, echo=Speaker(quiet).resolved)
    if as_json:
        print_json(asdict(found) | {"files": [str(f) for f in found.files], "metadata": dict(found.metadata)})
    else:
        say(str(found))
