"""Progress callbacks that draw bars on a terminal or in a notebook."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sae_geometry.io.escaping import shown

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_SECONDS = 0.25  # minimum seconds between two updates in a notebook
Progress = Callable[[str, float], None]
"""Callback that takes the name of the current step and the completed share of the step, in [0, 1]."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a progress callback that draws a bar per step with the time left, on stderr or in a notebook.

    The bars disappear at the end of the block. Print nothing inside the block.

    Example:
        >>> import sae_geometry as sg
        >>> with sg.progress_bars() as progress:
        ...     c = sg.compare("demo:local-narrow-seed0", "demo:local-seed0", progress=progress)
    """
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bars = rich_progress.Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    if console.is_jupyter:
        with _in_notebook(bars) as refresh:
            yield _ticks(bars, refresh)
    else:
        with bars:
            yield _ticks(bars)


def _ticks(bars: Bars, refresh: Callable[[], None] = lambda: None) -> Progress:
    tasks: dict[str, TaskID] = {}

    def tick(stage: str, share: float) -> None:
        stage = shown(stage)
        name = stage.partition(" · ")[0]  # The rest of the text, such as the gap, changes during a stage.
        if name not in tasks:
            tasks[name] = bars.add_task(stage, total=1.0)
        bars.update(tasks[name], completed=share, description=stage)
        refresh()

    return tick


@contextmanager
def _in_notebook(bars: Bars) -> Iterator[Callable[[], None]]:
    """Show bars below a notebook's cell as text, which needs no widgets, and remove them at the end.

    Yields a function that updates the bars, at most a few times per second.
    """
    from IPython.display import display
    from rich.console import Console

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    console = Console(file=io.StringIO(), width=80, force_jupyter=False)
    last = -_SECONDS

    def refresh() -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS:
            last = time.monotonic()
            with console.capture() as text:
                console.print(bars.get_renderable())
            handle.update({"text/plain": text.get()}, raw=True)

    try:
        yield refresh
    finally:
        handle.update({"text/plain": ""}, raw=True)
