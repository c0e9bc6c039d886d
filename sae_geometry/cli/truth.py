"""The `sae-geometry truth` command."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared()
def truth(
    a: o.FirstRun,
    features: Annotated[
        str,
        typer.Argument(metavar="FEATURES", help="Address of the true features, an array with one feature per row."),
    ],
    threshold: Annotated[
        float, typer.Option(metavar="X", help="Similarity above which a latent recovers a feature.")
    ] = 0.7,
    absolute: o.Absolute = False,
    *,
    shared: o.Shared,
) -> None:
    """Measure how well a dictionary recovers known features: precision, recall, F1, uniqueness, MCC, significance.

    Writes report.html, matches.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "truth", [a, features]) as work:
        work.finish(sg.truth(*work.dictionaries, threshold=threshold, signed=not absolute, **work.how))
