"""The `sae-geometry project` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.question import question


@o.with_shared(without=("dry_run", "unembed", "labels"))
def project(
    embedding: Annotated[
        Path, typer.Argument(metavar="EMBEDDING", help="Results folder of sae-geometry umap; it is not changed.")
    ],
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Addresses of the dictionaries to place.")],
    seed: Annotated[int, typer.Option(help="Random seed; the same seed and version give the same positions.")] = 0,
    *,
    shared: o.Shared,
) -> None:
    """Place further dictionaries in a saved UMAP without moving its points.

    Writes report.html, umap.parquet, neuronpedia.csv, summary.json and figures/.
    """
    import sae_geometry as sg

    saved = embedding.parent if embedding.name == "umap.parquet" else embedding
    if shared.out is not None and shared.out.resolve() == saved.resolve():
        raise ValueError(f"{shared.out} holds the embedding to project onto; give another folder with -o")
    with question(shared, "project", runs) as work:
        work.finish(sg.project(work.dictionaries, embedding, seed=seed, **work.how))
