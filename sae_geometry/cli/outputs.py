"""A command's results: which folder, saved, shown and logged."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sae_geometry.cli.console import Speaker, command_line, print_json, say_error
from sae_geometry.cli.lifecycle import FAILED, until_the_end
from sae_geometry.cli.options import Format
from sae_geometry.cli.resume import folder_names, kept_beside, place_for

if TYPE_CHECKING:
    from sae_geometry.results.store import Result


def results_folder(out: Path | None, command: str, names: list[str]) -> Path:
    """`out`, or a new folder in the current one named after the command and its inputs."""
    return next(folder_names(out, command, names))


def save_and_show(
    result: Result,
    speaker: Speaker,
    *,
    into: Path,
    words: str,
    formats: Sequence[Format],
    overwrite: bool,
    as_json: bool,
    style: str = "okabe-ito",
    log_wandb: str | None = None,
    offline: bool = False,
    colors: Sequence[str] = (),
    add: Callable[[Path], object] | None = None,
) -> None:
    """Save a result, print it in words or as the JSON that is on disk, say where it is, and log it if asked.

    Args:
        into: the folder.
        words: the result for people.
        log_wandb: "entity/project" to log to; a failure is told when all else is done.
        add: adds files to the folder, as in `save`.
    """
    from sae_geometry.results.store import save

    save(
        result, into, command=command_line(), formats=formats, style=style, colors=colors, overwrite=overwrite,
        add=add,
    )  # fmt: skip
    if as_json:
        print_json(summary_of(into))
    else:
        typer.echo(words)
    print_saved(into, speaker, as_json)
    log_to_wandb(into, log_wandb, speaker, offline=offline, as_json=as_json)


def log_to_wandb(folder: Path, project: str | None, speaker: Speaker, *, offline: bool, as_json: bool) -> None:
    """Log a results folder, if asked, and say where; a failure is one sentence and exit 1, the folder stays."""
    if project is None:
        return
    from sae_geometry.results.wandb_log import LoggingError, log_wandb

    try:
        where = log_wandb(folder, project, offline=offline)
    except LoggingError as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from None
    text = f"logged to {where}" if where.startswith("http") else f"recorded for W&B: wandb sync {shlex.quote(where)}"
    if as_json:
        speaker.note(text)
    else:
        typer.echo(text)


def print_saved(folder: Path, speaker: Speaker, as_json: bool) -> None:
    """Say where the results are: on stdout, or on stderr when stdout is JSON."""
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    text = f"saved to {folder}{os.sep}: {', '.join(files)}"
    if as_json:
        speaker.note(text)
    else:
        typer.echo(text)


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary just written, to print exactly what is on disk."""
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def keep_sweeps(out: Path | None, command: str, names: list[str], *, resume: bool, speaker: Speaker) -> Path:
    """From here to the end of the command, long sweeps are kept beside the results' folder, to be resumed.

    Args:
        out, command, names: as in `results_folder`.
        resume: go on from what an interrupted command had done.
        speaker: says what was kept.

    Returns:
        The results' folder, for which no other process is at work meanwhile.
    """
    place = until_the_end(place_for(out, command, names, work="sweeps", resume=resume))
    until_the_end(kept_beside(place, resume=resume, speaker=speaker))
    return place.folder
