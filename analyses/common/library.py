"""The dictionaries of an analysis, loaded when first needed. The most recent ones are cached in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import sae_geometry as sg
from analyses.common.errors import UnavailableError
from analyses.common.figures import source_of
from analyses.common.runs import Run

_IN_MEMORY = 4  # dictionaries; a paper's run with its encoder takes 283 MB


class Library:
    """Dictionaries by run. A run that could not be loaded is not tried again."""

    def __init__(
        self,
        *,
        latents: Literal["alive", "all"] = "alive",
        offline: bool = False,
        device: str = "cpu",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.latents: Literal["alive", "all"] = latents
        self._offline, self._device, self._say = offline, device, say
        self._held: OrderedDict[str, sg.Dictionary] = OrderedDict()
        self._sources: dict[str, dict[str, Any]] = {}
        self._failed: dict[str, str] = {}

    def get(self, run: Run) -> sg.Dictionary:
        """Return a run's dictionary, with the run's name and kind.

        Raises:
            UnavailableError: it is not published, or cannot be loaded.
        """
        if not run.address:
            raise UnavailableError(f"{run.name}: the weights are not published")
        key = run.identity
        if key in self._failed:
            raise UnavailableError(self._failed[key])
        if key not in self._held:
            self._held[key] = self._load(run)
            while len(self._held) > _IN_MEMORY:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        d = self._held[key]
        self._sources[key] = source_of(d, self.latents)
        known = {"kind": run.kind} if run.kind else {}
        return replace(d, name=run.name, metadata=MappingProxyType({**d.metadata, **known}))

    def source(self, run: Run) -> dict[str, Any]:
        """Return a run's name, address and fingerprint for a sidecar."""
        if run.identity not in self._sources:
            self.get(run)
        return {**self._sources[run.identity], "name": run.name}

    def fingerprint(self, run: Run) -> str:
        """Return the fingerprint of a run's weights."""
        return str(self.source(run)["fingerprint"])

    def _load(self, run: Run) -> sg.Dictionary:
        try:
            d = sg.load(run.address, self.latents, offline=self._offline, echo=self._say)
        except (sg.SourceError, OSError) as error:
            self._failed[run.identity] = f"{run.name}: {error}"
            raise UnavailableError(self._failed[run.identity]) from error
        said = d.metadata.get("kind")
        if run.kind and said and said != run.kind:
            self._say(f"note: {d.address} states its kind as {said}; the runs file states {run.kind}, which is used")
        return d if self._device == "cpu" else d.to(self._device)
