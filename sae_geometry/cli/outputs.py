"""Choose and lock the results folder of a command; print and log the results."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sae_geometry.cli.console import say_answer, say_error
from sae_geometry.cli.lifecycle import FAILED
from sae_geometry.io.escaping import cells, shown

if TYPE_CHECKING:
    from sae_geometry.results.result import Result


_STEM = 44  # maximum length of the input names in a folder name


def folder_names(out: Path | None, command: str, names: list[str]) -> Iterator[Path]:
    """Yield `out` or, if it is None, the unused folder names NAME, NAME-2, … for the command and its inputs."""
    if out is not None:
        yield out
        return
    most = max(_STEM // max(len(names), 1) - 1, 4)
    words = [(re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "run") for name in names]
    words = [w if len("-".join(words)) <= _STEM else w.encode()[:most].decode(errors="ignore") for w in words]
    stem = "-".join([command, *words])
    yield from (p for n in itertools.count(1) if not (p := Path(stem if n == 1 else f"{stem}-{n}")).exists())


@contextmanager
def claimed_folder(out: Path | None, command: str, names: list[str], *, resume: bool = False) -> Iterator[Path]:
    """Yield the first of `folder_names` that no other process is using, locked if the file system allows it.

    Args:
        resume: raise if the first name is in use, since its finished pairs are then in use as well.

    Raises:
        FileExistsError: another process is using `out`, or the results to resume.
    """
    import filelock

    from sae_geometry.sources.cache import holding

    for folder in folder_names(out, command, names):
        with ExitStack() as held:
            try:
                held.enter_context(holding(folder.resolve(), seconds=0.0))
            except filelock.Timeout:
                if out is None and not resume:
                    continue
                raise FileExistsError(
                    f"{folder} is in use by another process; wait for it, or give another folder with -o"
                ) from None
            except OSError:  # The file system does not allow a lock.
                pass
            if out is None and folder.exists():  # Another process created it in the meantime.
                continue
            yield folder
            return


def say_screen(result: Result) -> None:
    """Print a result's summary and as many labels below it as fit on `SCREEN` lines."""
    from sae_geometry.results.warnings import SCREEN

    answer, meanings = result.answer(), result.meanings
    if meanings is None:
        say_answer(answer, result.headline)
        return
    lines = [line for line in answer.split("\n") if line]
    room = SCREEN - len(lines) - 1  # The last line names the results folder.
    say_answer("\n".join([*lines, *meanings.few_lines(room)[:room]]), result.headline)


def page_writer(n_runs: int) -> Callable[[Path], object]:
    """Return the function that adds the explorer page; raise if plotly is missing or there are too many runs."""
    from sae_geometry.explorer import add_page, require_plotly
    from sae_geometry.matching.defaults import MOST_RUNS

    if n_runs > MOST_RUNS:
        raise ValueError(f"--html supports up to {MOST_RUNS} runs; got {n_runs:,}: leave out --html")
    require_plotly()
    return add_page


def saved_line(folder: Path) -> str:
    """Return one line with the results folder and the names of its files, most useful first."""
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    names = [shown(str(p)) for p in files if len(p.parts) == 1]
    names += ["figures/"] if any(len(p.parts) > 1 for p in files) else []
    names.sort(key=lambda name: (name != "report.html", not name.endswith(".csv"), name))
    text = f"wrote {shown(folder)}{os.sep}"
    room = 80 - cells(text) - len("     …")
    fitting = sum(len("  ".join(names[:n])) <= room for n in range(1, len(names) + 1))
    return "  ".join([f"{text} ", *names[:fitting], *(["…"] if fitting < len(names) else [])])


def logged_line(folder: Path, project: str) -> str:
    """Log a results folder to W&B and return a line with the run's URL or path; if this fails, print why and exit."""
    from sae_geometry.results.wandb_log import LoggingError, log_wandb

    try:
        where = log_wandb(folder, project)
    except LoggingError as error:
        say_error(str(error))
        raise typer.Exit(FAILED) from None
    return f"logged to {where}" if where.startswith("http") else f"saved; to upload: wandb sync {shlex.quote(where)}"
