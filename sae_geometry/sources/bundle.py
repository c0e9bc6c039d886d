"""Result of a source: files on disk with one checkpoint, and facts from the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sae_geometry.io.progress import Progress
from sae_geometry.kernels.settings import current

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Context:
    """Offline mode and callbacks of a request to a source.

    Attributes:
        offline: do not use the network; always so where the settings say it.
        echo: called with one line per step; None for no output.
        progress: called with a file's name and its completed share.
        again: which cached files to download again.
    """

    offline: bool = False
    echo: Echo | None = None
    progress: Progress | None = None
    again: Literal["none", "damaged", "all"] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "offline", self.offline or current().offline)

    def say(self, text: str) -> None:
        """Report a line to the callback, if there is one."""
        if self.echo is not None:
            self.echo(text)


@dataclass(frozen=True)
class Bundle:
    """One checkpoint on disk.

    Attributes:
        address: resolved address, recorded in every result.
        name: label unless the user sets one.
        where: path of the weights, prefixed with the repository's name; some layouts infer the hook point from it.
        configs: configuration files, the most specific first.
        start: the run's state at step 0, if it is on this machine.
        sparsity: SAELens's `sparsity.safetensors`, if there is one.
        labels: a table of labels next to the weights, if there is one.
        config: configuration known without a file.
        alive_ids: ids of the latents that fire, by hook point.
        alive_source: source of `alive_ids`.
        n_tokens: number of tokens over which firing was counted; None when not recorded.
        metadata: other facts from the source.
        notes: notes reported with every result.
    """

    weights: tuple[Path, ...]
    address: str
    name: str
    where: str
    configs: tuple[Path, ...] = ()
    start: Path | None = None
    sparsity: Path | None = None
    labels: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    alive_ids: Mapping[str, Sequence[int]] = field(default_factory=dict)
    alive_source: str = "unknown"
    n_tokens: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
