"""`sae-geometry umap RUN [RUN…]`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.inputs import expand_all
from sae_geometry.cli.lifecycle import report_errors
from sae_geometry.cli.outputs import page_writer
from sae_geometry.cli.question import question


class Color(StrEnum):
    """Quantities that can color the points."""

    OWNER = "owner"
    MAX_COSINE = "max-cosine"
    MATCHED = "matched"
    FREQUENCY = "frequency"
    REGION = "region"


@o.with_shared()
@report_errors
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
    threshold: o.Threshold = 0.7,
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
    stability: Annotated[
        bool,
        typer.Option("--stability/--no-stability", help="Say what two other seeds would show (two more layouts)."),
    ] = True,
    html: Annotated[
        bool, typer.Option("--html", help="Write explorer.html too: the picture to look around in, in one file.")
    ] = False,
    *,
    shared: o.Shared,
) -> None:
    """UMAP of one or more dictionaries together, from exact cosine neighbours, with its own evidence.

    Writes report.html, umap.parquet, regions.json, neuronpedia.csv, summary.json and figures/; with --html
    explorer.html too.

    A regions file holds A: {box: [x0, x1, y0, y1]} or B: {polygon: [[x, y], [x, y], [x, y]]}, one line a region.
    """
    import sae_geometry as sg

    addresses = expand_all(runs)
    add = page_writer(len(addresses)) if html else None
    shapes = None if regions is None else sg.read_shapes(regions)
    colors = [choice.value for choice in color or []]
    if shapes is not None and (regions_on != "picture" or min_region_size is not None):
        raise ValueError("--regions draws them by hand: leave out --regions-on and --min-region-size")
    with question(shared, "umap", addresses, n_neighbors=n_neighbors) as work:
        sg.plots.check_colors(colors, work.dictionaries)
        result = sg.umap(
            work.dictionaries,
            n_neighbors,
            min_dist=min_dist,
            seed=seed,
            n_epochs=n_epochs,
            backend=backend,
            n_seeds=3 if stability else 1,
            allow_mismatch=shared.allow_mismatch,
            progress=work.progress,
        )
        if shapes is not None or regions_on != "picture" or min_region_size is not None:
            result = result.with_regions(min_region_size, on=regions_on, shapes=shapes)
        result.across(work.progress)
        work.finish(result, figures=result.figures(style, colors, threshold=threshold), add=add)
