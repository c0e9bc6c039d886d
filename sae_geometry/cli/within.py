"""`sae-geometry within RUN`."""

from __future__ import annotations

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import check_free, check_wandb, load_all, say_plan
from sae_geometry.cli.lifecycle import told_in_one_sentence
from sae_geometry.cli.outputs import keep_sweeps, save_and_show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("within")(within)


@told_in_one_sentence
def within(
    run: o.Run,
    absolute: o.Absolute = False,
    latents: o.Latents = "alive",
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
    """How redundant is one dictionary: every latent's nearest other latent, itself excluded.

    Writes matches.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    [dictionary] = load_all([run], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        say_plan("within", [dictionary], as_json)
        return
    folder = keep_sweeps(out, "within", [dictionary.name], resume=resume, speaker=speaker)
    with speaker.bar() as progress:
        result = sg.compare_within(dictionary, signed=not absolute, progress=progress)
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
