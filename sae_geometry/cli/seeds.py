"""`sae-geometry seeds RUN RUN…`."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import check_free, check_wandb, compute_on, load_all, say_plan
from sae_geometry.cli.lifecycle import told_in_one_sentence
from sae_geometry.cli.outputs import save_and_show
from sae_geometry.cli.resume import check_leftovers, clear_sweeps, place_for, say_kept
from sae_geometry.io.progress import Progress

if TYPE_CHECKING:
    from sae_geometry.comparisons.seeds_result import SeedComparison

_FIRST_SECONDS = 3.0  # after so many, the pace is known
_LONG = 60.0  # seconds that are worth a word beforehand


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("seeds")(seeds)


@told_in_one_sentence
def seeds(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Two or more addresses; NAME=ADDRESS labels one.")
    ],
    matching: Annotated[
        Literal["mutual", "greedy", "optimal"] | None,
        typer.Option(
            "--matching", help="The one-to-one matching; by default optimal up to 4,096 latents a side, greedy beyond."
        ),
    ] = None,
    on: Annotated[
        Literal["decoder", "encoder", "both"],
        typer.Option("--on", help="Compare decoder or encoder directions, or the mean of both cosines."),
    ] = "decoder",
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="X", help="Found: a one-to-one partner more similar than X.")
    ] = 0.7,
    absolute: o.Absolute = False,
    resume: o.Resume = False,
    latents: o.Latents = "alive",
    allow_mismatch: o.AllowMismatch = False,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    formats: o.Formats = o.PNG_AND_PDF,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    dry_run: o.DryRun = False,
    memory: o.Memory = None,
    device: o.OnDevice = "auto",
    dask: o.OnDask = None,
    dask_load: o.DaskLoad = False,
    offline: o.Offline = False,
    log_wandb: o.LogWandb = None,
    drop_bad: o.DropBad = False,
) -> None:
    """Compare many runs, every ordered pair: MMCS, shared latents, PW-MCC, recurrence, consensus, rarefaction.

    Writes pairs.parquet, consensus.parquet, consensus.safetensors, orphans.parquet, summary.json and figures/. Finished
    pairs, and what is done of a long sweep, are kept in a folder beside the results (its name with .pairs; in the cache
    where nothing may be written there) until all are done; after an interruption the same command with --resume goes
    on from there.
    """
    import sae_geometry as sg

    if len(runs) < 2:
        raise ValueError(
            f"seeds compares two or more runs; got {len(runs)}: give more addresses, or use within for one"
        )
    check_free(out, overwrite)
    check_wandb(log_wandb, offline)
    speaker = Speaker(quiet)
    loaded = load_all(runs, speaker, latents=latents, device=device, offline=offline, drop_bad=drop_bad)
    if dry_run:
        say_plan("seeds", loaded, as_json, matching=matching, on=on)
        return
    compute_on(dask, device=device, load=loaded if dask_load else None, offline=offline)
    names = [d.name for d in loaded] if len(loaded) <= 4 else [f"{len(loaded)}-runs"]
    with place_for(out, "seeds", names, work="pairs", resume=resume) as place:
        kept = place.kept
        for half in kept.glob(".pair-*"):  # of a process that was killed as it wrote
            half.unlink()
        check_leftovers(kept, resume, speaker)
        try:
            with speaker.bar() as progress:
                result = sg.compare_seeds(
                    loaded,
                    matching=matching,
                    on=on,
                    signed=not absolute,
                    threshold=threshold,
                    keep=kept,
                    allow_mismatch=allow_mismatch,
                    progress=_foretelling(speaker, math.comb(len(loaded), 2), progress),
                )
            save_and_show(
                result,
                speaker,
                into=place.folder,
                words=repr(result),
                formats=formats,
                overwrite=overwrite,
                as_json=as_json,
                log_wandb=log_wandb,
                offline=offline,
            )
        except typer.Exit:  # saved, but not logged
            _clear(result, kept)
            raise
        except BaseException:
            say_kept(place, speaker)
            raise
        else:
            _clear(result, kept)
        finally:
            with suppress(OSError):  # something is kept there
                kept.rmdir()


def _foretelling(speaker: Speaker, n_pairs: int, progress: Progress | None) -> Progress:
    """A progress callback that says once, seconds after the first pair, what is left if it takes over a minute.

    That first one counts for nothing: it may have waited for code to be compiled, or for workers.
    """
    calls, since, begun = 0, 0.0, 0.0

    def tick(stage: str, share: float) -> None:
        nonlocal calls, since, begun
        if progress is not None:
            progress(stage, share)
        calls += 1
        if calls <= 2:  # before the first pair, and after it
            since, begun = time.perf_counter(), share
            return
        spent = time.perf_counter() - since
        if spent < _FIRST_SECONDS:
            return
        left = spent / (share - begun) * (1 - share)
        if left > _LONG:
            speaker.note(
                f"{round(n_pairs * (1 - share)):,} of {n_pairs:,} pairs are left: about {_in_words(left)} at this "
                "pace; stop whenever you like, finished pairs are kept for --resume"
            )
        since = math.inf  # said, or not worth saying

    return tick


def _in_words(seconds: float) -> str:
    """ "12 minutes", "7 hours", "3 days"."""
    for size, word in ((86_400, "days"), (3600, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{math.ceil(seconds / 60)} minutes"


def _clear(done: SeedComparison, kept: Path) -> None:
    """Remove the records of this comparison's pairs, all of which are in the results; another's stay."""
    from sae_geometry.comparisons.seeds import kept_records

    for path in kept_records(done, kept):
        path.unlink(missing_ok=True)
    clear_sweeps(kept)
