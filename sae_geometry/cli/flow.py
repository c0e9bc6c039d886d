"""`sae-geometry flow RUN0 RUN1 …`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.inputs import expand_all
from sae_geometry.cli.lifecycle import report_errors
from sae_geometry.cli.question import question


@o.with_shared()
@report_errors
def flow(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Layers of one model, first layer first; a pattern means several."),
    ],
    on: Annotated[
        Literal["writes", "reads"],
        typer.Option("--on", help="Compare decoders, or decoders with the encoders of the next layer."),
    ] = "writes",
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="X", help="Smallest cosine of an edge. [default: 0.5; 0 with --on reads]"),
    ] = None,
    false_discovery_rate: Annotated[
        float, typer.Option("--fdr", metavar="Q", help="False discovery rate of a step, between 0 and 1.")
    ] = 0.05,
    fold: Annotated[
        bool, typer.Option("--fold", help="Scale decoders and encoders by the latents' thresholds (JumpReLU).")
    ] = False,
    *,
    shared: o.Shared,
) -> None:
    """Follow features through the layers of one model: chains, births, deaths, splits and merges.

    Addresses may have a pattern: hf://org/repo/layers.{0..11}. Writes report.html, edges.parquet, chains.parquet,
    summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "flow", expand_all(runs), names=lambda made: [made[0].name, made[-1].name]) as work:
        result = sg.flow(
            work.dictionaries,
            on=on,
            threshold=threshold,
            false_discovery_rate=false_discovery_rate,
            fold=fold,
            allow_mismatch=shared.allow_mismatch,
            progress=work.progress,
        )
        work.finish(result)
