"""What a source hands over: files on disk that hold one checkpoint, and what was said about them on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_geometry.io.progress import Progress

Echo = Callable[[str], None]


@dataclass(frozen=True)
class Context:
    """Attributes:
    offline: touch no network.
    echo: called with one line at a time on what is being done; None for silence.
    progress: called with a file's name and the share of it done.
    """

    offline: bool = False
    echo: Echo | None = None
    progress: Progress | None = None

    def say(self, text: str) -> None:
        """Tell whoever listens."""
        if self.echo is not None:
            self.echo(text)


@dataclass(frozen=True)
class Bundle:
    """One checkpoint on disk.

    Attributes:
        weights: the file or files of tensors.
        address: the resolved address, recorded in every result.
        name: label unless the user sets one.
        where: the path of the weights after their repository's name, from which some layouts tell the hook point.
        configs: configuration files, the most telling first.
        sparsity: SAELens's `sparsity.safetensors`, if there is one.
        config: configuration known without a file.
        alive_ids: ids of the latents that fire, by hook point.
        alive_source: who says so.
        n_tokens: over how many tokens firing was counted; None when not recorded.
        metadata: what else the source said.
        notes: what every reader of a result should know.
    """

    weights: tuple[Path, ...]
    address: str
    name: str
    where: str
    configs: tuple[Path, ...] = ()
    sparsity: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    alive_ids: Mapping[str, Sequence[int]] = field(default_factory=dict)
    alive_source: str = "unknown"
    n_tokens: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
