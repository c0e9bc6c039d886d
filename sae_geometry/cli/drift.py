"""`sae-geometry drift RUN`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import check_free, check_wandb, say_plan
from sae_geometry.cli.lifecycle import told_in_one_sentence
from sae_geometry.cli.outputs import results_folder, save_and_show

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drift")(drift)


@told_in_one_sentence
def drift(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A folder or W&B run with several checkpoints named samples_N.pt.")
    ],
    final: Annotated[
        str | None,
        typer.Option("--final", metavar="ADDRESS", help="The last state. [default: the last checkpoint of the run]"),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="X", help="Cosine to the final direction that counts as born.")
    ] = 0.9,
    still: Annotated[
        float,
        typer.Option("--still", metavar="X", help="1 − cosine between checkpoints that counts as standing still."),
    ] = 1e-5,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    formats: o.Formats = o.PNG_AND_PDF,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    offline: o.Offline = False,
    log_wandb: o.LogWandb = None,
) -> None:
    """Follow each latent of a run through its checkpoints: cosine to its final direction, birth and death.

    Writes drift.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    if dry_run:
        say_plan("drift", _as_the_last(run, final, speaker, offline), as_json)
        return
    with speaker.bar() as progress:
        result = sg.compare_checkpoints(
            run, final, threshold=threshold, still=still, offline=offline, echo=speaker.resolved, progress=progress
        )
    save_and_show(
        result,
        speaker,
        into=results_folder(out, "drift", [result.final.name]),
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
    )


def _as_the_last(run: str, final: str | None, speaker: Speaker, offline: bool) -> list[Dictionary]:
    """Every state as if it were the last, which alone is loaded: they are of one size."""
    from sae_geometry.sources import checkpoints, load

    states = [*checkpoints(run, offline=offline, echo=speaker.resolved), *([] if final is None else [final])]
    return [load(states[-1], "all", encoder=False, offline=offline, echo=speaker.resolved)] * len(states)
