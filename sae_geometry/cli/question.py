"""Run the steps that most commands share: check options, load, plan, save, print and log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sae_geometry.cli.console import Speaker, command_line, print_json, say
from sae_geometry.cli.inputs import load_all, say_plan
from sae_geometry.cli.options import Shared
from sae_geometry.cli.outputs import claimed_folder, logged_line, saved_line, say_screen
from sae_geometry.io.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sae_geometry.dictionary import Dictionary
    from sae_geometry.results.result import Result


@dataclass(frozen=True)
class Work:
    """Inputs, folder and console of a running command.

    Attributes:
        folder: results folder, locked for this process.
        progress: progress callback; None if no progress is drawn.
        end_bar: function that ends the progress bar, to call before anything is printed.
    """

    dictionaries: list[Dictionary]
    folder: Path
    progress: Progress | None
    speaker: Speaker
    end_bar: Callable[[], None]
    shared: Shared

    @property
    def how(self) -> dict[str, Any]:
        """The keyword arguments that every comparison of several dictionaries takes."""
        return {"allow_mismatch": self.shared.allow_mismatch, "progress": self.progress}

    def finish(
        self,
        result: Result,
        *,
        figures: Mapping[str, Figure] | None = None,
        add: Callable[[Path], object] | None = None,
        record: str = "summary.json",
    ) -> None:
        """Save the result, print its summary (with --json, the saved JSON) and its folder, and log it if requested.

        Args:
            figures, add: passed to `save`.
            record: the file that --json prints.
        """
        from sae_geometry.results.store import save

        self.end_bar()
        shared = self.shared
        with self.speaker.bar() as progress:
            save(
                result, self.folder, command=command_line(), formats=shared.formats, figures=figures,
                overwrite=shared.overwrite, add=add, progress=progress,
            )  # fmt: skip
        if shared.as_json:
            print_json(json.loads((self.folder / record).read_text(encoding="utf-8")))
        elif shared.verbose:
            meanings = result.meanings
            say("\n".join([result.details(), *([] if meanings is None else meanings.lines())]))
        else:
            say_screen(result)
        tell = self.speaker.note if shared.as_json else say
        tell(saved_line(self.folder))
        if shared.log_wandb is not None:
            tell(logged_line(self.folder, shared.log_wandb))


@contextmanager
def question(
    shared: Shared,
    verb: str,
    inputs: list[str] | Callable[[Speaker], list[Dictionary]],
    *,
    names: Callable[[list[Dictionary]], list[str]] | None = None,
    resume: bool = False,
    **plan: Any,
) -> Iterator[Work]:
    """Check the options, load the dictionaries, and yield a `Work`; with --dry-run print the cost and exit.

    Args:
        inputs: addresses, or a function that loads dictionaries (for commands that do not load all of them at once).
        names: function that returns the names to use in the folder's name; by default, the dictionaries' names.
    """
    from sae_geometry.distributed import settings
    from sae_geometry.io.atomic_folder import check_folder, check_writable

    if shared.dask_load and shared.dask is None:
        raise ValueError("--dask-load applies only with --dask: add --dask, or leave out --dask-load")
    if shared.out is None:
        check_writable(Path.cwd())
    else:
        check_folder(shared.out, shared.overwrite)
    if shared.log_wandb is not None:
        from sae_geometry.results.wandb_log import check_wandb

        check_wandb(shared.log_wandb)
    speaker = Speaker(shared.quiet)
    dictionaries = inputs(speaker) if callable(inputs) else load_all(inputs, speaker, shared)
    if shared.dry_run:
        say_plan(verb, dictionaries, shared.as_json, **plan)
        raise typer.Exit
    if shared.unembed is not None or shared.labels:
        dictionaries = _labeled(dictionaries, shared, speaker)
        dictionaries = [d.keep_alive() for d in dictionaries] if shared.latents == "alive" else dictionaries
    called = [d.name for d in dictionaries] if names is None else names(dictionaries)
    with ExitStack() as stack:
        stack.enter_context(settings(executor=shared.dask, load=dictionaries if shared.dask_load else ()))
        folder = stack.enter_context(claimed_folder(shared.out, verb, called, resume=resume))
        bar = stack.enter_context(ExitStack())
        progress = bar.enter_context(speaker.bar())
        yield Work(dictionaries, folder, progress, speaker, bar.close, shared)


def _labeled(dictionaries: list[Dictionary], shared: Shared, speaker: Speaker) -> list[Dictionary]:
    """Return the dictionaries with the tokens and labels of --unembed and --labels."""
    from sae_geometry.labels.attach import with_labels
    from sae_geometry.sources.bundle import Context

    with speaker.bar() as progress:
        context = Context(echo=speaker.note, progress=progress)
        return with_labels(
            dictionaries, context, unembed=shared.unembed, given=shared.labels or (),
            allow_mismatch=shared.allow_mismatch,
        )  # fmt: skip
