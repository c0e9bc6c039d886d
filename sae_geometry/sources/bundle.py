"""Classes for a checkpoint on disk with the facts that its source states, and for the options of a request."""

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
    """Options for a request to a source: offline mode, which the settings can enforce, and callbacks.

    Attributes:
        again: which cached files to download again.
    """

    offline: bool = False
    echo: Echo | None = None
    progress: Progress | None = None
    again: Literal["none", "damaged", "all"] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "offline", self.offline or current().offline)

    def say(self, text: str) -> None:
        """Pass a line of text to the `echo` callback, if there is one."""
        if self.echo is not None:
            self.echo(text)


@dataclass(frozen=True)
class Bundle:
    """One checkpoint on disk, with the facts that its source states.

    Attributes:
        name: default label.
        where: path of the weights, prefixed with the repository's name; some layouts infer the hook point from it.
        configs: configuration files; the most specific comes first.
        start: the run's checkpoint at step 0, if it is on this machine.
        config: configuration that comes from the source itself, not from a file.
        alive_ids: ids of the latents that fire, by hook point.
        n_tokens: number of tokens over which firing was counted; None if not recorded.
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
