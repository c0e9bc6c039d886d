"""The `sae-geometry split` command."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared()
def split(
    narrow: Annotated[str, typer.Argument(metavar="NARROW", help="Address of the dictionary with fewer latents.")],
    wide: Annotated[str, typer.Argument(metavar="WIDE", help="Address of the dictionary with more latents.")],
    terms: Annotated[
        int, typer.Option(metavar="T", help="Maximum number of wide latents in the combination for a narrow latent.")
    ] = 4,
    fdr: Annotated[float, typer.Option(metavar="Q", help="False discovery rate for children, between 0 and 1.")] = 0.05,
    *,
    shared: o.Shared,
) -> None:
    """Find each narrow latent's children in a wide dictionary, how much they explain, and which wide latents are new.

    Writes report.html, split.parquet, parents.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    with question(shared, "split", [narrow, wide], n_terms=terms) as work:
        work.finish(sg.split(*work.dictionaries, false_discovery_rate=fdr, n_terms=terms, **work.how))
