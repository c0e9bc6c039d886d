"""The `sae-geometry seeds` command."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import Speaker
from sae_geometry.cli.inputs import expand_all
from sae_geometry.cli.outputs import folder_names
from sae_geometry.cli.question import question
from sae_geometry.cli.resume import kept_pairs
from sae_geometry.io.formatting import counted
from sae_geometry.io.progress import Progress

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary

_FIRST_SECONDS = 3.0  # seconds before the rate is estimated
_LONG = 60.0  # shortest remaining time worth reporting, in seconds


@o.with_shared()
def seeds(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Two or more addresses; NAME=ADDRESS sets a run's label.")
    ],
    matching: Annotated[
        Literal["mutual", "greedy", "optimal"] | None,
        typer.Option(help="One-to-one matching. [default: optimal up to 4,096 latents per side, greedy beyond]"),
    ] = None,
    on: o.On = "decoder",
    threshold: Annotated[
        float, typer.Option(metavar="X", help="Similarity above which a one-to-one partner counts as shared.")
    ] = 0.7,
    absolute: o.Absolute = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run from its finished pairs.")
    ] = False,
    *,
    shared: o.Shared,
) -> None:
    """Compare every ordered pair of many runs: MMCS, shared latents, PW-MCC, recurrence, consensus, rarefaction.

    Writes report.html, pairs.parquet, consensus.parquet, consensus.safetensors, orphans.parquet, summary.json and
    figures/. Finished pairs are saved in a folder NAME.pairs next to the results (or in the cache if that place is
    not writable) until all are done. After an interruption, --resume continues from the saved pairs.
    """
    import sae_geometry as sg
    from sae_geometry.comparisons.seeds import forget_pairs

    runs = expand_all(runs)
    if len(runs) < 2:
        raise ValueError(
            f"seeds compares two or more runs; got {len(runs)}: give more addresses, or use the within command"
        )
    with (
        question(shared, "seeds", runs, names=_names, resume=resume, matching=matching, on=on) as work,
        kept_pairs(
            work.folder,
            usual=shared.out or next(folder_names(None, "seeds", _names(work.dictionaries))),
            resume=resume,
            speaker=work.speaker,
        ) as kept,
    ):
        result = sg.seeds(
            work.dictionaries,
            matching=matching,
            on=on,
            signed=not absolute,
            threshold=threshold,
            keep=kept,
            allow_mismatch=shared.allow_mismatch,
            progress=_remaining_time(work.speaker, math.comb(len(runs), 2), work.progress),
        )
        try:
            work.finish(result)
        except typer.Exit:  # The results are saved; only logging failed.
            forget_pairs(result, kept)
            raise
        forget_pairs(result, kept)


def _names(loaded: list[Dictionary]) -> list[str]:
    return [d.name for d in loaded] if len(loaded) <= 4 else [f"{len(loaded)}-runs"]


def _remaining_time(speaker: Speaker, n_pairs: int, progress: Progress | None) -> Progress:
    """Return a progress callback that reports the remaining time once, if it exceeds a minute.

    The first pair is not timed, since it may include compilation or waiting for workers.
    """
    calls, since, begun = 0, 0.0, 0.0

    def tick(stage: str, share: float) -> None:
        nonlocal calls, since, begun
        if progress is not None:
            progress(stage, share)
        calls += 1
        if calls <= 2:  # These calls are the start and end of the first pair.
            since, begun = time.perf_counter(), share
            return
        spent = time.perf_counter() - since
        if spent < _FIRST_SECONDS:
            return
        left = spent / (share - begun) * (1 - share)
        if left > _LONG:
            speaker.note(
                f"{counted(round(n_pairs * (1 - share)), 'pair')} of {n_pairs:,} to go: about {_in_words(left)} at "
                "this pace; you can stop at any time, since finished pairs are saved for --resume"
            )
        since = math.inf  # Report at most once.

    return tick


def _in_words(seconds: float) -> str:
    """Return a duration in words, such as "12 minutes" or "7 hours"."""
    for size, word in ((86_400, "days"), (3600, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return counted(math.ceil(seconds / 60), "minute")
