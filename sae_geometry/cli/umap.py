"""`sae-geometry umap RUN [RUN…]`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import check_free, check_wandb, compute_on, load_all, say_plan
from sae_geometry.cli.lifecycle import told_in_one_sentence
from sae_geometry.cli.outputs import keep_sweeps, save_and_show


class Color(StrEnum):
    """What the points may be coloured by."""

    OWNER = "owner"
    MAX_COSINE = "max-cosine"
    MATCHED = "matched"
    FREQUENCY = "frequency"
    REGION = "region"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("umap")(umap)


@told_in_one_sentence
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
        Literal["auto", "numba", "umap-learn", "cuml"],
        typer.Option("--backend", help="auto takes cuML if it can run here, else numba, which uses all threads."),
    ] = "auto",
    style: Annotated[
        Literal["okabe-ito", "e2e"], typer.Option("--style", help="Colours; e2e colours by kind, as the paper does.")
    ] = "okabe-ito",
    color: Annotated[
        list[Color] | None,
        typer.Option("--color", help="A further figure coloured by this; may be given more than once."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            "--regions", metavar="FILE", help="Boxes and polygons drawn by hand (YAML), instead of HDBSCAN's."
        ),
    ] = None,
    regions_on: Annotated[
        Literal["picture", "neighbors"],
        typer.Option(
            "--regions-on", help="What HDBSCAN clusters: the picture, or the neighbours in the original space."
        ),
    ] = "picture",
    min_region_size: Annotated[
        int | None,
        typer.Option(
            "--min-region-size", metavar="N", help="Fewest latents of a region. [default: 1 % of all, 10 at least]"
        ),
    ] = None,
    project_onto: Annotated[
        Path | None,
        typer.Option(
            "--project-onto", metavar="DIR", help="Place these runs into a UMAP saved before, which stays as it is."
        ),
    ] = None,
    stability: Annotated[
        bool,
        typer.Option("--stability/--no-stability", help="Say what two other seeds would show (two more layouts)."),
    ] = True,
    latents: o.Latents = "alive",
    allow_mismatch: o.AllowMismatch = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write explorer.html too: the picture to look around in, in one file.")
    ] = False,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    formats: o.Formats = o.PNG_AND_PDF,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    resume: o.Resume = False,
    memory: o.Memory = None,
    device: o.OnDevice = "auto",
    dask: o.OnDask = None,
    dask_load: o.DaskLoad = False,
    offline: o.Offline = False,
    log_wandb: o.LogWandb = None,
    drop_bad: o.DropBad = False,
) -> None:
    """UMAP of one or more dictionaries together, from exact cosine neighbours, with its own evidence.

    Writes umap.parquet, regions.json, neuronpedia.csv, summary.json and figures/; with --html explorer.html too.

    A regions file holds A: {box: [x0, x1, y0, y1]} or B: {polygon: [[x, y], [x, y], [x, y]]}, one line a region.
    """
    import sae_geometry as sg
    from sae_geometry.matching.defaults import MOST_RUNS

    if project_onto is not None:
        _refuse_what_the_picture_decides(
            n_neighbors=n_neighbors, min_dist=min_dist, n_epochs=n_epochs, backend=backend, color=color,
            regions=regions, regions_on=regions_on, min_region_size=min_region_size, stability=stability,
            html=html, dry_run=dry_run, style=style,
        )  # fmt: skip
        picture = project_onto.parent if project_onto.name == "umap.parquet" else project_onto
        if out is not None and out.resolve() == picture.resolve():
            raise ValueError(f"{out} is the picture that --project-onto leaves as it is; give another folder with -o")
    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    if html and len(runs) > MOST_RUNS:
        raise ValueError(f"--html makes a page of up to {MOST_RUNS} runs; got {len(runs):,}: leave it out")
    add = _page_writer() if html else None
    speaker = Speaker(quiet)
    shapes = None if regions is None else sg.read_shapes(regions)
    colors = [choice.value for choice in color or []]
    if shapes is not None and (regions_on != "picture" or min_region_size is not None):
        raise ValueError("--regions draws them by hand: leave out --regions-on and --min-region-size")
    dictionaries = load_all(runs, speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        say_plan("umap", dictionaries, as_json, n_neighbors=n_neighbors)
        return
    compute_on(dask, device=device, load=dictionaries if dask_load else None, offline=offline)
    names = [d.name for d in dictionaries] + ([] if project_onto is None else ["projected"])
    folder = keep_sweeps(out, "umap", names, resume=resume, speaker=speaker)
    if project_onto is not None:
        with speaker.bar() as progress:
            projected = sg.project(
                dictionaries, project_onto, seed=seed, offline=offline, allow_mismatch=allow_mismatch, progress=progress
            )  # fmt: skip
        save_and_show(
            projected,
            speaker,
            into=folder,
            words=repr(projected),
            formats=formats,
            overwrite=overwrite,
            as_json=as_json,
            log_wandb=log_wandb,
            offline=offline,
        )
        return
    sg.plots.check_colors(colors, dictionaries)
    with speaker.bar() as progress:
        result = sg.embed(
            dictionaries,
            n_neighbors,
            min_dist=min_dist,
            seed=seed,
            n_epochs=n_epochs,
            backend=backend,
            n_seeds=3 if stability else 1,
            allow_mismatch=allow_mismatch,
            progress=progress,
        )
        if shapes is not None or regions_on != "picture" or min_region_size is not None:
            result = result.with_regions(min_region_size, on=regions_on, shapes=shapes)
        result.across(progress)
    save_and_show(
        result,
        speaker,
        into=folder,
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
        style=style,
        colors=colors,
        add=add,
    )


def _refuse_what_the_picture_decides(**given: object) -> None:
    """Options that --project-onto takes from the saved picture or has no use for."""
    usual = {"n_neighbors": 15, "min_dist": 0.1, "backend": "auto", "regions_on": "picture", "stability": True}
    usual |= {"html": False, "dry_run": False, "style": "okabe-ito"}
    other = [name for name, value in given.items() if value != usual.get(name) and value is not None]
    if other:
        raise ValueError(
            f"--project-onto takes these from the saved picture or has no use for them: leave out "
            f"{', '.join('--' + ('no-stability' if n == 'stability' else n.replace('_', '-')) for n in other)}"
        )


def _page_writer() -> Callable[[Path], object]:
    """What adds the page, asked for before any work is done: it needs a package that may not be there."""
    from sae_geometry.explorer import add_page, require_plotly

    require_plotly()
    return add_page
