"""Progress callbacks, and bars that follow them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sae_geometry.io.escaping import shown

Progress = Callable[[str, float], None]
"""Called with the name of the current step and its completed share, in [0, 1]."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a progress callback that draws a bar per step, with the time left: in notebooks, and on stderr elsewhere.

    The bars disappear at the end of the block. Print nothing inside it.

    Example:
        >>> import sae_geometry as sg
        >>> with sg.progress_bars() as progress:
        ...     c = sg.compare("demo:local-narrow-seed0", "demo:local-seed0", progress=progress)
    """
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    with rich_progress.Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    ) as bars:  # fmt: skip
        tasks: dict[str, TaskID] = {}

        def tick(stage: str, share: float) -> None:
            stage = shown(stage)
            name = stage.partition(" · ")[0]  # the rest changes during the stage, such as the gap
            if name not in tasks:
                tasks[name] = bars.add_task(stage, total=1.0)
            bars.update(tasks[name], completed=share, description=stage)

        yield tick
