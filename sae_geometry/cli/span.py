"""`sae-geometry span A B`."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("span")(span)


@c.told_in_one_sentence
def span(
    a: Annotated[str, typer.Argument(metavar="A", help="The first dictionary's address; NAME=ADDRESS sets its label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The second dictionary's address.")],
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="X", help="Unmatched: no one-to-one partner more similar than X.")
    ] = 0.7,
    latents: c.Latents = "alive",
    allow_mismatch: c.AllowMismatch = False,
    out: c.Out = None,
    overwrite: c.Overwrite = False,
    formats: c.Formats = c.PNG_AND_PDF,
    as_json: c.AsJson = False,
    quiet: c.Quiet = False,
    dry_run: c.DryRun = False,
    resume: c.Resume = False,
    memory: c.Memory = None,
    device: c.OnDevice = "auto",
    offline: c.Offline = False,
    log_wandb: c.LogWandb = None,
    drop_bad: c.DropBad = False,
) -> None:
    """How much of A's latents without a partner lies in the span of B's latents, beside chance.

    Writes span.parquet, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.confounds import confound_audit

    c.check_free(out, overwrite)
    c.check_wandb(log_wandb, offline)
    speaker = c.Speaker(quiet)
    left, right = c.load_all([a, b], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        c.say_plan("span", [left, right], as_json)
        return
    c.keep_sweeps((out, "span", [left.name, right.name]), resume=resume, speaker=speaker)
    with speaker.bar() as progress:
        result = sg.span_overlap(left, right, threshold=threshold, allow_mismatch=allow_mismatch, progress=progress)
    speaker.say(str(confound_audit(*result.dictionaries)), unless=as_json)
    c.save_and_show(
        result,
        speaker,
        into=(out, "span", [result.a.name, result.b.name]),
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
    )
