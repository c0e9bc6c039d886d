"""The `sae-geometry drift` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import with_axis
from sae_geometry.cli.question import question

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary


@o.with_shared(without=("latents", "allow_mismatch", "memory", "device", "dask", "dask_load"))
def drift(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A folder, W&B run or demo with checkpoints named samples_N.pt.")
    ],
    final: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address of the final checkpoint. [default: the run's last]")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(metavar="X", help="A latent is born once its cosine to its final direction stays at or above X."),
    ] = 0.9,
    still: Annotated[
        float, typer.Option(metavar="X", help="A latent is unmoved once 1 − cosine to the next checkpoint stays ≤ X.")
    ] = 1e-5,
    *,
    shared: o.Shared,
) -> None:
    """Follow each latent of a run through its checkpoints: cosine to its final direction, birth and death.

    Writes report.html, drift.parquet, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.sources import checkpoints, load

    states: list[str] = []

    def last_checkpoint(speaker: Speaker) -> list[Dictionary]:
        """Load the last checkpoint; for a dry run, return it once per checkpoint, since all have the same size."""
        places = [run] if final is None else [run, final]
        first, *rest = (with_axis(place, shared.latent_axis) for place in places)
        states.extend([*checkpoints(first, echo=speaker.resolved), *rest])
        with speaker.bar() as progress:
            last = load(states[-1], "all", drop_bad=shared.drop_bad, echo=speaker.resolved, progress=progress)
        return [last] * (len(states) if shared.dry_run else 1)

    with question(shared._replace(latents="all"), "drift", last_checkpoint) as work:
        result = sg.drift(
            states[:-1], work.dictionaries[0], threshold=threshold, still=still, drop_bad=shared.drop_bad,
            echo=work.speaker.resolved, progress=work.progress,
        )  # fmt: skip
        work.finish(result)
