"""The `sae-geometry agreement` command."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared()
def agreement(
    a: o.FirstRun,
    b: o.SecondRun,
    threshold: Annotated[float, typer.Option(metavar="X", help="Cosine above which directions count as alike.")] = 0.7,
    *,
    shared: o.Shared,
) -> None:
    """Check whether the encoders of A and B confirm the partners that their decoders find.

    Writes report.html, agreement.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "agreement", [a, b]) as work:
        work.finish(sg.agreement(*work.dictionaries, threshold=threshold, **work.how))
