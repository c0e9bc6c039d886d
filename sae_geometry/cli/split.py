"""`sae-geometry split NARROW WIDE`."""

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
    app.command("split")(split)


@told_in_one_sentence
def split(
    narrow: Annotated[str, typer.Argument(metavar="NARROW", help="The dictionary with fewer latents: its address.")],
    wide: Annotated[str, typer.Argument(metavar="WIDE", help="The dictionary with more latents.")],
    n_terms: Annotated[
        int, typer.Option("--terms", metavar="T", help="How many wide latents may combine to a narrow one.")
    ] = 4,
    false_discovery_rate: Annotated[
        float, typer.Option("--fdr", metavar="Q", help="False discovery rate for children, between 0 and 1.")
    ] = 0.05,
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
    """Feature splitting: each narrow latent's children in a wide dictionary, what they explain of it, and what is new.

    Writes split.parquet, parents.parquet, summary.json and figures/.
    """
    import sae_geometry as sg
    from sae_geometry.pairwise.confounds import confound_audit

    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    small, large = load_all([narrow, wide], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        say_plan("split", [small, large], as_json, n_terms=n_terms)
        return
    folder = keep_sweeps(out, "split", [small.name, large.name], resume=resume, speaker=speaker)
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
