"""The `sae-geometry span` command."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared(without=("unembed", "labels"))
def span(
    a: o.FirstRun,
    b: o.SecondRun,
    threshold: Annotated[
        float, typer.Option(metavar="X", help="Latents without a one-to-one partner above X are unmatched.")
    ] = 0.7,
    *,
    shared: o.Shared,
) -> None:
    """Measure how much of A's unmatched latents lies in the span of B's latents, compared with chance.

    Writes report.html, span.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "span", [a, b]) as work:
        work.finish(sg.span(*work.dictionaries, threshold=threshold, **work.how))
