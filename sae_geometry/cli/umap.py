"""`sae-geometry umap RUN [RUN…]`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("umap")(umap)


@c.told_in_one_sentence
def umap(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="One or more addresses, embedded together.")],
    n_neighbors: Annotated[
        int, typer.Option("--n-neighbors", help="Size of the neighbourhood, the point itself counted.")
    ] = 15,
    min_dist: Annotated[float, typer.Option("--min-dist", help="Least distance between points in the picture.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, backend and version: same picture.")] = 0,
    n_epochs: Annotated[
        int | None, typer.Option("--n-epochs", metavar="N", help="Optimisation epochs. [default: the backend's choice]")
    ] = None,
    backend: Annotated[
        Literal["auto", "umap-learn", "cuml"], typer.Option("--backend", help="auto takes cuML if it can run here.")
    ] = "auto",
    style: Annotated[
        Literal["okabe-ito", "e2e"], typer.Option("--style", help="Colours; e2e colours by kind, as the paper does.")
    ] = "okabe-ito",
    latents: c.Latents = "alive",
    allow_mismatch: c.AllowMismatch = False,
    out: c.Out = None,
    overwrite: c.Overwrite = False,
    formats: c.Formats = c.PNG_AND_PDF,
    as_json: c.AsJson = False,
    quiet: c.Quiet = False,
    dry_run: c.DryRun = False,
    memory: c.Memory = None,
    device: c.OnDevice = "auto",
    offline: c.Offline = False,
    drop_bad: c.DropBad = False,
) -> None:
    """UMAP of one or more dictionaries together, from exact cosine neighbours, with its own evidence.

    Writes umap.parquet, regions.json, neuronpedia.csv, summary.json and figures/.
    """
    import sae_geometry as sg

    c.check_free(out, overwrite)
    speaker = c.Speaker(quiet)
    dictionaries = c.load_all(runs, speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        c.say_plan("umap", dictionaries, as_json, n_neighbors=n_neighbors)
        return
    with speaker.bar() as progress:
        result = sg.embed(
            dictionaries,
            n_neighbors,
            min_dist=min_dist,
            seed=seed,
            n_epochs=n_epochs,
            backend=backend,
            allow_mismatch=allow_mismatch,
            progress=progress,
        )
        result.across(progress)
    c.save_and_show(
        result,
        speaker,
        into=(out, "umap", list(result.names)),
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        style=style,
    )
