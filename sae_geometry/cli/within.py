"""`sae-geometry within RUN`."""

from __future__ import annotations

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("within")(within)


@c.told_in_one_sentence
def within(
    run: c.Run,
    absolute: c.Absolute = False,
    latents: c.Latents = "alive",
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
    """How redundant is one dictionary: every latent's nearest other latent, itself excluded.

    Writes matches.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    c.check_free(out, overwrite)
    c.check_wandb(log_wandb, offline)
    speaker = c.Speaker(quiet)
    [dictionary] = c.load_all([run], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        c.say_plan("within", [dictionary], as_json)
        return
    c.keep_sweeps((out, "within", [dictionary.name]), resume=resume, speaker=speaker)
    with speaker.bar() as progress:
        result = sg.compare_within(dictionary, signed=not absolute, progress=progress)
    c.save_and_show(
        result,
        speaker,
        into=(out, "within", [dictionary.name]),
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
    )
