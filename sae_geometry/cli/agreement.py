"""`sae-geometry agreement A B`."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import check_free, check_wandb, load_all, say_plan
from sae_geometry.cli.lifecycle import told_in_one_sentence
from sae_geometry.cli.outputs import keep_sweeps, save_and_show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("agreement")(agreement)


@told_in_one_sentence
def agreement(
    a: Annotated[str, typer.Argument(metavar="A", help="The first dictionary's address; NAME=ADDRESS sets its label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The second dictionary's address.")],
    threshold: Annotated[float, typer.Option("--threshold", metavar="X", help="Cosines above X are high.")] = 0.7,
    latents: o.Latents = "alive",
    allow_mismatch: o.AllowMismatch = False,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    formats: o.Formats = o.PNG_AND_PDF,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    resume: o.Resume = False,
    memory: o.Memory = None,
    device: o.OnDevice = "auto",
    offline: o.Offline = False,
    log_wandb: o.LogWandb = None,
    drop_bad: o.DropBad = False,
) -> None:
    """Encoder beside decoder: do A's and B's encoders confirm the partners that their decoders find?

    Writes agreement.parquet, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.pairwise.confounds import confound_audit

    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    left, right = load_all([a, b], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        say_plan("agreement", [left, right], as_json)
        return
    folder = keep_sweeps(out, "agreement", [left.name, right.name], resume=resume, speaker=speaker)
    with speaker.bar() as progress:
        result = sg.encoder_agreement(
            left, right, threshold=threshold, allow_mismatch=allow_mismatch, progress=progress
        )
    speaker.say(str(confound_audit(*result.dictionaries)), unless=as_json)
    save_and_show(
        result,
        speaker,
        into=folder,
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
    )
