"""The `sae-geometry flow` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.inputs import expand_all
from sae_geometry.cli.outputs import page_writer
from sae_geometry.cli.question import question

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary


@o.with_shared()
def flow(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Addresses of one model's layers, in order; patterns are expanded."),
    ],
    on: Annotated[
        Literal["writes", "reads"],
        typer.Option(help="Compare each layer's decoder with the next layer's decoder (writes) or encoder (reads)."),
    ] = "writes",
    threshold: Annotated[
        float | None, typer.Option(metavar="X", help="Minimum cosine of an edge. [default: 0.5; 0 with --on reads]")
    ] = None,
    fdr: Annotated[float, typer.Option(metavar="Q", help="False discovery rate per step, between 0 and 1.")] = 0.05,
    fold: Annotated[
        bool, typer.Option("--fold", help="Scale decoders and encoders by the latents' thresholds (JumpReLU).")
    ] = False,
    map_files: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="File (or FILE::KEY) with a linear map [d_in, d_out] to apply before normalization. Give one map for "
            "all layers, or one per step for the earlier layer (repeat the option, or give a pattern).",
        ),
    ] = None,
    map_side: Annotated[
        Literal["first", "both"] | None,
        typer.Option(
            help="Map the earlier layer of each step, or all layers. [default: both for one map, first for several]"
        ),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also write explorer.html, with lines from layer to layer.")
    ] = False,
    *,
    shared: o.Shared,
) -> None:
    """Follow features through the layers of one model: chains, births, deaths, splits and merges.

    Addresses may contain a pattern: hf://org/repo/layers.{0..11}. Writes report.html, edges.parquet, chains.parquet,
    summary.json and figures/, and with --html explorer.html.
    """
    import sae_geometry as sg

    addresses = expand_all(runs)
    add = page_writer(len(addresses)) if html else None
    with question(shared, "flow", addresses, names=lambda made: [made[0].name, made[-1].name]) as work:
        layers, maps = _mapped(work.dictionaries, expand_all(map_files or []), map_side)
        result = sg.flow(layers, on=on, threshold=threshold, false_discovery_rate=fdr, fold=fold, maps=maps, **work.how)
        work.finish(result, add=add)


def _mapped(
    layers: list[Dictionary], files: list[str], side: Literal["first", "both"] | None
) -> tuple[list[Dictionary], list[tuple[str, Any]]]:
    """Return the layers and one map per step. If one map applies to all layers, return mapped layers and no maps."""
    from sae_geometry.pairwise.mapping import mapped
    from sae_geometry.sources.vectors import read_matrix

    if not files:
        if side is not None:
            raise ValueError("--map-side applies only with --map: add --map FILE, or leave out --map-side")
        return layers, []
    steps, both = len(layers) - 1, side == "both" or (side is None and len(files) == 1)
    if len(files) != 1 and (both or len(files) != steps):
        wanted = "one file" if both else f"one file, or one per step ({steps})"
        raise ValueError(f"--map takes {wanted}; got {len(files)}")
    maps = [read_matrix(file) for file in files]
    if both:
        return [mapped(d, maps[0][1], name=maps[0][0]) for d in layers], []
    return layers, maps if len(maps) == steps else maps * steps
