"""`sae-geometry split NARROW WIDE`."""

from __future__ import annotations

from typing import Annotated

import typer

from sae_geometry.cli import common as c


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("split")(split)


@c.told_in_one_sentence
def split(
    narrow: Annotated[str, typer.Argument(metavar="NARROW", help="The dictionary with fewer latents: its address.")],
    wide: Annotated[str, typer.Argument(metavar="WIDE", help="The dictionary with more latents.")],
    n_terms: Annotated[
        int, typer.Option("--terms", metavar="T", help="How many wide latents may combine to a narrow one.")
    ] = 4,
    false_discovery_rate: Annotated[
        float, typer.Option("--fdr", metavar="Q", help="False discovery rate for children, between 0 and 1.")
    ] = 0.05,
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
    """Feature splitting: each narrow latent's children in a wide dictionary, what they explain of it, and what is new.

    Writes split.parquet, parents.parquet, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.confounds import confound_audit

    c.check_free(out, overwrite)
    c.check_wandb(log_wandb, offline)
    speaker = c.Speaker(quiet)
    small, large = c.load_all(
        [narrow, wide], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad
    )
    if dry_run:
        c.say_plan("split", [small, large], as_json, n_terms=n_terms)
        return
    c.keep_sweeps((out, "split", [small.name, large.name]), resume=resume, speaker=speaker)
    with speaker.bar() as progress:
        result = sg.split_map(
            small,
            large,
            false_discovery_rate=false_discovery_rate,
            n_terms=n_terms,
            allow_mismatch=allow_mismatch,
            progress=progress,
        )
    speaker.say(str(confound_audit(*result.dictionaries)), unless=as_json)
    c.save_and_show(
        result,
        speaker,
        into=(out, "split", [small.name, large.name]),
        words=repr(result),
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
    )
