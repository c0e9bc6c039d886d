"""What every command shares: options, where output goes, how an error is told, bars on a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec

import typer

from sae_geometry.cli.stopping import INTERRUPTED, TERMINATED, TerminatedError
from sae_geometry.kernels.ledger import ledger
from sae_geometry.text import without_secrets

if TYPE_CHECKING:
    from sae_geometry.dictionary import Dictionary
    from sae_geometry.planning import Verb
    from sae_geometry.store import Result

P = ParamSpec("P")

FAILED, WRONG_USE, UNDER = 1, 2, 3

Device = Literal["auto", "cpu", "cuda", "mps"]


class Format(StrEnum):
    """How a figure may be written."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


PNG_AND_PDF = [Format.PNG, Format.PDF]

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="An address: demo:NAME, a path, …; NAME=ADDRESS sets its label.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o", "--out", metavar="DIR", help="Folder for the results. [default: a new one named after the inputs]"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder's contents.")]
Formats = Annotated[list[Format], typer.Option("--format", help="Figure format; may be given more than once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")]
OnDevice = Annotated[Device, typer.Option("--device", help="Where to compute; auto takes a GPU if there is one.")]
Latents = Annotated[
    Literal["alive", "all"], typer.Option("--latents", help="Drop latents known to be dead (alive), or keep all.")
]
Absolute = Annotated[bool, typer.Option("--absolute", help="Compare |cosine| instead of the signed cosine.")]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Go on although model or hook point differ; every output says so.")
]
DropBad = Annotated[
    bool, typer.Option("--drop-bad", help="Drop latents whose decoder row is zero or not finite, and say so.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Touch no network: demos, local files and caches only.")]
LogWandb = Annotated[
    str | None,
    typer.Option("--log-wandb", metavar="ENTITY/PROJECT", help="Also log the results there, as a new run of W&B."),
]
OnDask = Annotated[
    str | None,
    typer.Option(
        "--dask", metavar="WHERE", help="Compute on Dask: local:N worker processes, or a scheduler at tcp://HOST:PORT."
    ),
]

DaskLoad = Annotated[
    bool,
    typer.Option(
        "--dask-load", help="Have a Dask worker load the runs from their addresses, where it finds the same there."
    ),
]


Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from what this command had done when it was interrupted.")
]


_AT_END: ContextVar[ExitStack] = ContextVar("what is closed when the command ends")


def _keep_to(context: Any, limit: str | None) -> str | None:
    """A ceiling holds from here until the command has ended."""
    from sae_geometry.kernels.blocks import memory_ceiling

    if limit is not None:
        try:
            context.with_resource(memory_ceiling(limit))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    return limit


Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", metavar="SIZE", callback=_keep_to,
        help="No sweep takes more than this above its inputs: 500MB, 2GB. [default: 256MB; 2GB on a GPU]",
    ),
]  # fmt: skip
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what it would cost here: operations, bytes, memory and time.")
]


def told_in_one_sentence(command: Callable[P, None]) -> Callable[P, None]:
    """Decorator: what goes wrong is one red line and an exit code; a traceback only with SAE_GEOMETRY_DEBUG=1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with ExitStack() as at_end, ledger():
                _AT_END.set(at_end)
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say_error("stopped; no results folder is half-written")
            raise typer.Exit(INTERRUPTED) from None
        except TerminatedError:
            say_error("stopped by SIGTERM; no results folder is half-written")
            raise typer.Exit(TERMINATED) from None
        except Exception as error:
            if os.environ.get("SAE_GEOMETRY_DEBUG") == "1":
                trace = "".join(traceback.format_exception(error)).rstrip()
                typer.echo(without_secrets(trace), err=True)
                raise typer.Exit(_exit_code(error)) from None
            say_error(_sentence(error))
            raise typer.Exit(_exit_code(error)) from None

    return wrapped


def say_error(text: str) -> None:
    """One line on stderr, red on a terminal."""
    typer.secho(f"error: {without_secrets(text)}", fg=typer.colors.RED if _colorful() else None, err=True)


class Speaker:
    """Where a command's words go: results to stdout, the rest to stderr unless quiet."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def note(self, text: str) -> None:
        """Say something on stderr."""
        if not self.quiet:
            typer.echo(without_secrets(text), err=True)

    def say(self, text: str, *, unless: bool) -> None:
        """Say something of the result on stdout, unless that carries JSON."""
        if not unless:
            typer.echo(text)

    def resolved(self, text: str) -> None:
        """Say what an address was resolved to ("typed → resolved"), unless it says nothing new."""
        typed, _, found = text.partition(" → ")
        if typed != found:
            self.note(text)

    @contextmanager
    def bar(self) -> Iterator[Callable[[str, float], None] | None]:
        """A progress callback that draws bars on stderr, or None where stderr is no terminal or we are quiet."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

        with Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        ) as progress:  # fmt: skip
            tasks: dict[str, TaskID] = {}

            def tick(stage: str, share: float) -> None:
                name = stage.partition(" · ")[0]  # what follows changes as it goes: the gap, say
                if name not in tasks:
                    tasks[name] = progress.add_task(stage, total=1.0)
                progress.update(tasks[name], completed=share, description=stage)

            yield tick


def load_all(
    addresses: list[str],
    speaker: Speaker,
    *,
    latents: Literal["alive", "all"],
    device: Device,
    offline: bool,
    drop_bad: bool = False,
) -> list[Dictionary]:
    """Load dictionaries, saying what each address was resolved to and how many latents it keeps."""
    import warnings

    from sae_geometry.sources import OrientationWarning, load

    where = pick_device(device)
    loaded = []
    for address in addresses:
        with warnings.catch_warnings(), speaker.bar() as progress:
            warnings.simplefilter("ignore", OrientationWarning)  # it is among the dictionary's notes
            d = load(
                address, latents, offline=offline, drop_bad=drop_bad, echo=speaker.resolved, progress=progress
            )  # fmt: skip
        speaker.note(f"{d.name}: {d.n_latents:,} × {d.d_in:,}, {d.alive.describe()}")
        for note in d.notes:
            speaker.note(f"{d.name}: {note}")
        loaded.append(d if where == "cpu" else d.to(where))
    return loaded


def compute_on(dask: str | None, *, device: Device, load: Sequence[Dictionary] | None, offline: bool) -> None:
    """From here to the end of the command, sweeps and pairs are sent to Dask; None changes nothing.

    Args:
        dask: where.
        device: workers keep to what was asked of this process.
        load: dictionaries that workers are to load from their addresses; None if they are to be sent.
        offline: they touch no network for it either.

    Raises:
        ValueError: something to load, and no Dask.
    """
    if dask is None:
        if load is not None:
            raise ValueError("--dask-load says how Dask workers get the runs: add --dask, or leave it out")
        return
    from sae_geometry.executor import running_on

    _AT_END.get().enter_context(running_on(dask, device=device, load=load or (), offline=offline))


def keep_sweeps(into: tuple[Path | None, str, list[str]], *, resume: bool, speaker: Speaker) -> None:
    """From here to the end of the command, long sweeps are kept beside the results' folder, to be resumed.

    Args:
        into: what `results_folder` takes.
        resume: go on from what an interrupted command had done.
        speaker: says what was kept.
    """
    from sae_geometry.cli.keeping import kept_beside

    folder = results_folder(*into, work="sweeps")
    _AT_END.get().enter_context(kept_beside(folder, resume=resume, speaker=speaker))


def pick_device(device: Device) -> str:
    """The torch device to compute on.

    Raises:
        ValueError: a device asked for that is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[device]:
        raise ValueError(f"--device {device} is not available here; use --device auto or cpu")
    return device


def check_free(out: Path | None, overwrite: bool) -> None:
    """Refuse a folder that results must not go to before any work is done, not after."""
    from sae_geometry.folders import check_folder, check_writable

    if out is None:
        check_writable(Path.cwd())
    else:
        check_folder(out, overwrite)


def check_wandb(project: str | None, offline: bool) -> None:
    """Refuse what could not be logged before any work is done, if logging is asked for."""
    if project is not None:
        from sae_geometry.wandb_log import check_wandb as check

        check(project, offline=offline)


def results_folder(out: Path | None, command: str, names: list[str], *, work: str | None = None) -> Path:
    """`out`, or a new folder in the current one named after the command and its inputs.

    With `work`, the suffix of the folder beside it where unfinished work is kept, not one for which another process is
    at work.
    """
    from sae_geometry.cli.keeping import beside
    from sae_geometry.folders import in_use

    if out is not None:
        return out
    words = [command, *(re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "run" for name in names)]
    stem = "-".join(words).encode()[:120].decode(errors="ignore")  # a file name has at most 255 bytes
    folder, n = Path(stem), 2
    while folder.exists() or (work is not None and in_use(beside(folder, work))):
        folder, n = Path(f"{stem}-{n}"), n + 1
    return folder


def print_json(value: Any) -> None:
    """Strict JSON on stdout."""
    from sae_geometry.store import to_json

    text = to_json(value)
    if not _says_everything():
        text = json.dumps(json.loads(text), indent=2)  # \u escapes
    typer.echo(text)


def say_plan(
    verb: Verb,
    dictionaries: list[Dictionary],
    as_json: bool,
    *,
    workers: int | None = None,
    bandwidth: float = 1.25e9,
    **how: Any,
) -> None:
    """What a verb would cost, on stdout: what --dry-run prints in place of an answer.

    Args:
        workers: also what it would cost on so many Dask workers.
        bandwidth: bytes a second that the network carries to them.
        how: as in `estimate`.
    """
    from dataclasses import asdict

    from sae_geometry.planning import estimate
    from sae_geometry.planning_cluster import cluster_plan

    found, plan = estimate(dictionaries, verb, **how), None
    if workers is not None and not found.passes:
        raise ValueError(f"{verb} makes no sweeps to spread over workers; leave out --workers")
    if workers is not None:
        plan = cluster_plan(
            found.passes, dictionaries[0].d_in, n_dictionaries=len(dictionaries), workers=workers,
            rate=found.flops / 2 / found.seconds, bandwidth=bandwidth, whole_pairs=found.whole_pairs,
        )  # fmt: skip
    if as_json:
        said = {key: value for key, value in asdict(found).items() if key != "passes"}
        print_json(said | ({} if plan is None else {"cluster": asdict(plan)}))
    else:
        typer.echo(str(found) if plan is None else f"{found}\n{plan}")


def save_and_show(
    result: Result,
    speaker: Speaker,
    *,
    into: tuple[Path | None, str, list[str]],
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
        into: what `results_folder` takes: the folder asked for, the command, the inputs' names.
        words: the result for people.
        log_wandb: "entity/project" to log to; a failure is told when all else is done.
        add: adds files to the folder, as in `save`.
    """
    from sae_geometry.store import save

    folder = results_folder(*into)
    save(
        result, folder, command=command_line(), formats=formats, style=style, colors=colors, overwrite=overwrite,
        add=add,
    )  # fmt: skip
    if as_json:
        print_json(summary_of(folder))
    else:
        typer.echo(words)
    print_saved(folder, speaker, as_json)
    log_to_wandb(folder, log_wandb, speaker, offline=offline, as_json=as_json)


def log_to_wandb(folder: Path, project: str | None, speaker: Speaker, *, offline: bool, as_json: bool) -> None:
    """Log a results folder, if asked, and say where; a failure is one sentence and exit 1, the folder stays."""
    if project is None:
        return
    from sae_geometry.wandb_log import LoggingError, log_wandb

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


def command_line() -> str:
    """The command as typed, for provenance."""
    return without_secrets(shlex.join(["sae-geometry", *sys.argv[1:]]))


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary just written, to print exactly what is on disk."""
    return dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def _sentence(error: Exception) -> str:
    from sae_geometry.executor.errors import WorkerMemoryError

    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror.lower()}"
    if isinstance(error, WorkerMemoryError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory; try --device cpu, or a machine with more"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ValueError | OSError | ImportError):
        return text
    return f"{type(error).__name__}: {text} (this looks like our mistake: SAE_GEOMETRY_DEBUG=1 shows where)"


def _exit_code(error: Exception) -> int:
    from sae_geometry.sources.errors import AddressError, SourceError

    if isinstance(error, AddressError):
        return WRONG_USE
    if isinstance(error, SourceError) or not isinstance(error, ValueError | FileExistsError):
        return FAILED
    return WRONG_USE


def _says_everything() -> bool:
    """Whether stdout takes every character."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")


def _colorful() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
