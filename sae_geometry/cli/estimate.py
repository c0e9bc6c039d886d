"""The `sae-geometry estimate` command."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import load_all, say_plan


def estimate(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Addresses of one or more dictionaries.")],
    verb: Annotated[
        Literal["compare", "match", "within", "seeds", "agreement", "span", "split", "truth", "umap", "drift", "flow"],
        typer.Option("--for", help="Command whose cost to estimate."),
    ] = "compare",
    matching: Annotated[
        Literal["nearest", "mutual", "greedy", "optimal"] | None,
        typer.Option(help="Matching to assume for compare or seeds. [default: the command's own]"),
    ] = None,
    n_neighbors: Annotated[int, typer.Option(help="For umap: neighbors per point, including the point itself.")] = 15,
    terms: Annotated[int, typer.Option(metavar="T", help="For split: maximum wide latents per combination.")] = 4,
    workers: Annotated[
        int | None, typer.Option(metavar="M", min=1, help="Also estimate the cost on M Dask workers.")
    ] = None,
    bandwidth: Annotated[
        float, typer.Option(metavar="GBIT", min=0.001, help="With --workers: network bandwidth in Gbit/s.")
    ] = 10.0,
    latents: o.Latents = "alive",
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    memory: o.Memory = None,
    device: o.OnDevice = "auto",
    offline: o.Offline = False,
    drop_bad: o.DropBad = False,
    latent_axis: o.LatentAxis = None,
) -> None:
    """Estimate the cost of a command on this device: operations, bytes, memory, and time from a one-second probe.

    Each command prints the same estimate with --dry-run. For drift, give the checkpoints of one run, in order.
    """
    shared = o.Shared(latents=latents, drop_bad=drop_bad, latent_axis=latent_axis)
    dictionaries = load_all(runs, Speaker(quiet), shared)
    say_plan(
        verb, dictionaries, as_json, workers=workers, bandwidth=bandwidth * 1e9 / 8, matching=matching,
        n_neighbors=n_neighbors, n_terms=terms,
    )  # fmt: skip
