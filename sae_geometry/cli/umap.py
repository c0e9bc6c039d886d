"""The `sae-geometry umap` command."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.inputs import expand_all
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
def umap(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Addresses of dictionaries to embed together.")],
    n_neighbors: Annotated[int, typer.Option(help="Neighbors per point, including the point itself.")] = 15,
    min_dist: Annotated[float, typer.Option(help="Minimum distance between points in the layout.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Random seed; the layout also depends on backend and version.")] = 0,
    n_epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Optimization epochs. [default: the backend's choice]")
    ] = None,
    backend: Annotated[
        Literal["auto", "numba", "umap-learn", "cuml"],
        typer.Option(help="auto uses cuML if it runs on this machine, else numba with all threads."),
    ] = "auto",
    style: Annotated[
        Literal["okabe-ito", "e2e"], typer.Option(help="Color scheme; e2e colors by kind, as in the paper.")
    ] = "okabe-ito",
    color: Annotated[
        list[Color] | None, typer.Option(help="Add a figure colored by this quantity; may be given more than once.")
    ] = None,
    threshold: o.Threshold = 0.7,
    regions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file of boxes and polygons to use instead of HDBSCAN.")
    ] = None,
    regions_on: Annotated[
        Literal["picture", "neighbors"],
        typer.Option(help="Cluster the layout, or the neighbors in the original space."),
    ] = "picture",
    min_region_size: Annotated[
        int | None, typer.Option(metavar="N", help="Minimum region size in latents. [default: 1% of all, at least 10]")
    ] = None,
    stability: Annotated[
        bool,
        typer.Option("--stability/--no-stability", help="Measure stability over two other seeds (two more layouts)."),
    ] = True,
    html: Annotated[
        bool, typer.Option("--html", help="Also write explorer.html, the interactive layout in one file.")
    ] = False,
    *,
    shared: o.Shared,
) -> None:
    """Compute a joint UMAP of one or more dictionaries from exact cosine neighbors, and measure its quality.

    Writes report.html, umap.parquet, regions.json, neuronpedia.csv, summary.json and figures/, and with --html
    explorer.html.

    A regions file has one region per line: A: {box: [x0, x1, y0, y1]} or B: {polygon: [[x, y], [x, y], [x, y]]}.
    """
    import sae_geometry as sg

    addresses = expand_all(runs)
    add = page_writer(len(addresses)) if html else None
    shapes = None if regions is None else sg.read_shapes(regions)
    colors = [choice.value for choice in color or []]
    if shapes is not None and (regions_on != "picture" or min_region_size is not None):
        raise ValueError("--regions replaces clustering: leave out --regions-on and --min-region-size")
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
            **work.how,
        )
        if shapes is not None or regions_on != "picture" or min_region_size is not None:
            result = result.with_regions(min_region_size, on=regions_on, shapes=shapes)
        result.across(work.progress)
        work.finish(result, figures=result.figures(style, colors, threshold=threshold), add=add)
