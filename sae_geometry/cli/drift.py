"""`sae-geometry drift RUN`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import say_plan, with_axis
from sae_geometry.cli.outputs import claimed_folder, save_and_show
from sae_geometry.cli.question import begin, labeled

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary


@o.with_shared(without=("latents", "allow_mismatch", "memory", "device", "dask", "dask_load"))
def drift(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A folder, W&B run or demo with checkpoints named samples_N.pt.")
    ],
    final: Annotated[
        str | None,
        typer.Option("--final", metavar="ADDRESS", help="The last state. [default: the last checkpoint of the run]"),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", metavar="X", help="Cosine to its final direction from which a latent counts as born."
        ),
    ] = 0.9,
    still: Annotated[
        float, typer.Option("--still", metavar="X", help="Largest 1 − cosine between checkpoints of an unmoved latent.")
    ] = 1e-5,
    *,
    shared: o.Shared,
) -> None:
    """Follow each latent of a run through its checkpoints: cosine to its final direction, birth and death.

    Writes report.html, drift.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    speaker, axis = begin(shared), shared.latent_axis
    run, final = with_axis(run, axis), None if final is None else with_axis(final, axis)
    if shared.dry_run:
        say_plan("drift", _as_the_last(run, final, speaker, shared), shared.as_json)
        return
    with speaker.bar() as progress:
        result = sg.drift(
            run, final, threshold=threshold, still=still, drop_bad=shared.drop_bad, echo=speaker.resolved,
            progress=progress,
        )  # fmt: skip
    if shared.unembed is not None or shared.labels:
        result = replace(result, final=labeled([result.final], shared, speaker)[0])
    with claimed_folder(shared.out, "drift", [result.final.name]) as folder:
        save_and_show(result, speaker, shared, into=folder)


def _as_the_last(run: str, final: str | None, speaker: Speaker, shared: o.Shared) -> list[Dictionary]:
    """Return the last state in place of every other, since all have one size and only the last is loaded."""
    from sae_geometry.sources import checkpoints, load

    states = [*checkpoints(run, echo=speaker.resolved), *([] if final is None else [final])]
    last = load(states[-1], "all", encoder=False, drop_bad=shared.drop_bad, echo=speaker.resolved)
    return [last] * len(states)
