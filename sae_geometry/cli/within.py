"""The `sae-geometry within` command."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared(without=("allow_mismatch",))
def within(
    run: o.Run,
    threshold: Annotated[
        float, typer.Option(metavar="X", min=-1, max=1, help="Similarity above which two latents count as alike.")
    ] = 0.7,
    absolute: o.Absolute = False,
    *,
    shared: o.Shared,
) -> None:
    """Measure how redundant one dictionary is, by the cosine of every latent to its nearest other latent.

    Writes report.html, matches.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "within", [run]) as work:
        work.finish(sg.within(work.dictionaries[0], signed=not absolute, threshold=threshold, progress=work.progress))
