"""`sae-geometry estimate RUN [RUN…]`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import Annotated, Literal

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("estimate")(estimate)


@c.told_in_one_sentence
def estimate(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The dictionaries; two or more to compare.")],
    verb: Annotated[
        Literal["compare", "within", "umap"], typer.Option("--for", help="Which question would be asked of them.")
    ] = "compare",
    n_neighbors: Annotated[int, typer.Option("--n-neighbors", help="For umap: the point itself counted.")] = 15,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="M", min=1, help="Also what it would cost on M Dask workers.")
    ] = None,
    bandwidth: Annotated[
        float, typer.Option("--bandwidth", metavar="GBIT", min=0.001, help="Of the network, in Gbit/s; with --workers.")
    ] = 10.0,
    latents: c.Latents = "alive",
    as_json: c.AsJson = False,
    quiet: c.Quiet = False,
    device: c.OnDevice = "auto",
    offline: c.Offline = False,
    drop_bad: c.DropBad = False,
) -> None:
    """What a question would cost on this device: operations, bytes, memory, and time from a one-second probe."""
    import sae_geometry as sg

    speaker = c.Speaker(quiet)
    dictionaries = c.load_all(
        runs, speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad
    )  # fmt: skip
    found = sg.estimate(dictionaries, verb, n_neighbors=n_neighbors)
    plan = None
    if workers is not None:
        from sae_geometry.planning_cluster import cluster_plan

        sizes = [d.n_latents for d in dictionaries]
        plan = cluster_plan(
            list(combinations(sizes, 2)) if verb == "compare" else [(n, n) for n in sizes],
            dictionaries[0].d_in,
            n_neighbors - 1 if verb == "umap" else 1,
            n_dictionaries=len(sizes),
            workers=workers,
            rate=found.flops / 2 / found.seconds,
            bandwidth=bandwidth * 1e9 / 8,
        )
    if as_json:
        c.print_json(asdict(found) | ({} if plan is None else {"cluster": asdict(plan)}))
    else:
        typer.echo(str(found) if plan is None else f"{found}\n{plan}")
