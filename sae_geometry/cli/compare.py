"""`sae-geometry compare A B`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import say_error
from sae_geometry.cli.lifecycle import UNDER, report_errors
from sae_geometry.cli.question import question


@o.with_shared()
@report_errors
def compare(
    a: o.FirstRun,
    b: o.SecondRun,
    matching: Annotated[
        Literal["nearest", "mutual", "greedy", "optimal"],
        typer.Option("--matching", help="How pairs are made; nearest lets two latents claim the same partner."),
    ] = "nearest",
    on: o.On = "decoder",
    threshold: o.Threshold = 0.7,
    absolute: o.Absolute = False,
    min_similarity: Annotated[
        float | None,
        typer.Option("--min-similarity", metavar="X", help="With --matching optimal: match nothing below X."),
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(
            "--turns",
            metavar="N",
            min=0,
            help="How often a one-to-one matching is also made against B turned, for its chance; by default 3 times up "
            "to 4,096 latents a side, once beyond.",
        ),
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", metavar="X", help="Exit 3 if the mean similarity, either way, is below X."),
    ] = None,
    *,
    shared: o.Shared,
) -> None:
    """Compare two dictionaries: every latent's partner, both directions, with and without double counting.

    Writes report.html, matches.parquet, shared.csv, only-a.csv, only-b.csv, summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "compare", [a, b], matching=matching, on=on) as work:
        left, right = work.dictionaries
        result = sg.compare(
            left,
            right,
            matching,
            on=on,
            signed=not absolute,
            min_similarity=min_similarity,
            turns=turns,
            threshold=threshold,
            allow_mismatch=shared.allow_mismatch,
            progress=work.progress,
        )
        work.finish(result)
    reached = min(result.a_to_b.mean_similarity, result.b_to_a.mean_similarity)
    if fail_under is not None and not reached >= fail_under:
        say_error(f"mean similarity ({matching}) is {reached:.4f}, below --fail-under {fail_under}")
        raise typer.Exit(UNDER)
