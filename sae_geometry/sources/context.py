"""How a source is to go about it: with or without the network, and whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Echo = Callable[[str], None]
Progress = Callable[[str, float], None]
Again = Literal["none", "damaged", "all"]


@dataclass(frozen=True)
class Context:
    """Attributes:
    offline: touch no network.
    echo: called with one line at a time on what is being done; None for silence.
    progress: called with a file's name and the share of it done.
    again: which of the files that are in a cache are fetched again.
    """

    offline: bool = False
    echo: Echo | None = None
    progress: Progress | None = None
    again: Again = "none"

    def say(self, text: str) -> None:
        """Tell whoever listens."""
        if self.echo is not None:
            self.echo(text)
