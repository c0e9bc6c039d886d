"""The `sae-geometry nearest` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import map_of, with_axis
from sae_geometry.cli.question import question

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary


@o.with_shared(without=("dry_run", "dask", "dask_load"))
def nearest(
    vector: Annotated[
        str,
        typer.Argument(
            metavar="VECTOR",
            help="A file with one or several vectors (.npy, .npz, .pt, .safetensors; FILE::KEY, FILE::row=3), or "
            "RUN::latent=12.",
        ),
    ],
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Dictionaries, patterns (layers.{0..11}), folders or repositories."),
    ],
    k: Annotated[int, typer.Option("-k", "--top", metavar="K", help="Latents to list per vector, 1 to 64.")] = 10,
    absolute: o.Absolute = False,
    map_file: o.Map = None,
    map_side: o.MapSide = None,
    turns: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Random turns drawn for p-values. [default: 999, fewer for many vectors]"
        ),
    ] = None,
    *,
    shared: o.Shared,
) -> None:
    """Find the latents closest to any vector: a probe, a steering vector, a token's embedding, another run's latent.

    Writes report.html, nearest.parquet, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.labels.attach import LabelEach
    from sae_geometry.sources.bundle import Context
    from sae_geometry.sources.vectors import as_vectors

    def vectors(speaker: Speaker) -> list[Dictionary]:
        with speaker.bar() as progress:
            return [as_vectors(vector, echo=speaker.resolved, progress=progress)]

    # Labels belong to the searched runs, not to the vectors.
    with question(shared._replace(unembed=None, labels=None), "nearest", vectors) as work:
        given, echo = shared.labels or [], work.speaker.resolved
        label = LabelEach(given, Context(echo=work.speaker.note, progress=work.progress), shared.allow_mismatch)
        source, mapping = map_of(work.dictionaries[0], map_file, map_side)

        def labeled(d: Dictionary) -> Dictionary:
            return label(d).keep_alive() if given and shared.latents == "alive" else label(d)

        found = sg.nearest(
            source, [with_axis(run, shared.latent_axis) for run in runs], k, signed=not absolute, turns=turns,
            latents=shared.latents, drop_bad=shared.drop_bad, prepare=lambda d: mapping(labeled(d)),
            unembed=shared.unembed, echo=echo, **work.how,
        )  # fmt: skip
        label.require_used()
        work.finish(found)
