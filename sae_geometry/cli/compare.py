"""`sae-geometry compare A B`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker, say_error
from sae_geometry.cli.inputs import check_free, check_wandb, compute_on, load_all, say_plan
from sae_geometry.cli.lifecycle import UNDER, told_in_one_sentence
from sae_geometry.cli.outputs import keep_sweeps, save_and_show

if TYPE_CHECKING:
    from sae_geometry.comparisons.pair import Comparison


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def _one_to_one_words(result: Comparison) -> str:
    """The other ways of counting: all of them where they are quick, the greedy one beyond."""
    if result.is_small:
        return str(result.double_counting())
    paired = result.one_to_one().a_to_b
    return f"one-to-one ({paired.method}): mean {paired.mmcs:.4f} over {paired.n_matched:,} pairs"


@told_in_one_sentence
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The first dictionary's address; NAME=ADDRESS sets its label.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The second dictionary's address.")],
    matching: Annotated[
        Literal["nearest", "mutual", "greedy", "optimal"],
        typer.Option("--matching", help="How pairs are made; nearest lets two latents claim the same partner."),
    ] = "nearest",
    on: Annotated[
        Literal["decoder", "encoder", "both"],
        typer.Option("--on", help="Compare decoder or encoder directions, or the mean of both cosines."),
    ] = "decoder",
    absolute: o.Absolute = False,
    min_similarity: Annotated[
        float | None,
        typer.Option("--min-similarity", metavar="X", help="With --matching optimal: match nothing below X."),
    ] = None,
    null_draws: Annotated[
        int | None,
        typer.Option(
            "--null-draws",
            metavar="N",
            min=0,
            help="Random dictionaries that a one-to-one matching is also made on, for its chance; by default as many "
            "as make 1,000 latents, none beyond 4,096 a side.",
        ),
    ] = None,
    latents: o.Latents = "alive",
    allow_mismatch: o.AllowMismatch = False,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", metavar="X", help="Exit 3 if the mean similarity, either way, is below X."),
    ] = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    formats: o.Formats = o.PNG_AND_PDF,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    resume: o.Resume = False,
    memory: o.Memory = None,
    device: o.OnDevice = "auto",
    dask: o.OnDask = None,
    dask_load: o.DaskLoad = False,
    offline: o.Offline = False,
    log_wandb: o.LogWandb = None,
    drop_bad: o.DropBad = False,
) -> None:
    """Compare two dictionaries: every latent's partner, both directions, with and without double counting.

    Writes matches.parquet, summary.json and figures/.
    """
    import sae_geometry as sg

    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    left, right = load_all([a, b], speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        say_plan("compare", [left, right], as_json, matching=matching, on=on)
        return
    compute_on(dask, device=device, load=[left, right] if dask_load else None, offline=offline)
    folder = keep_sweeps(out, "compare", [left.name, right.name], resume=resume, speaker=speaker)
    with speaker.bar() as progress:
        result = sg.compare(
            left,
            right,
            matching,
            on=on,
            signed=not absolute,
            min_similarity=min_similarity,
            null_draws=null_draws,
            allow_mismatch=allow_mismatch,
            progress=progress,
        )
    speaker.say(str(result.confounds), unless=as_json)
    words = repr(result) if matching != "nearest" else f"{result!r}\n{_one_to_one_words(result)}"
    save_and_show(
        result,
        speaker,
        into=folder,
        words=words,
        formats=formats,
        overwrite=overwrite,
        as_json=as_json,
        log_wandb=log_wandb,
        offline=offline,
    )
    reached = min(result.a_to_b.mmcs, result.b_to_a.mmcs)
    if fail_under is not None and not reached >= fail_under:
        say_error(f"mean similarity ({matching}) is {reached:.4f}, below --fail-under {fail_under}")
        raise typer.Exit(UNDER)
