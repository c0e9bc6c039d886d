"""The contract of every result: numbers, tables, figures, text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sae_geometry.dictionary import Dictionary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


SCHEMA_VERSION = 2  # of summary.json and regions.json


@runtime_checkable
class Result(Protocol):
    """What a question returns.

    `repr` is the answer on one screen; `details` is everything that is known about it.
    """

    @property
    def dictionaries(self) -> Sequence[Dictionary]: ...
    @property
    def caveats(self) -> Sequence[str]: ...
    @property
    def method(self) -> str: ...
    def summary(self) -> dict[str, Any]: ...
    def tables(self) -> Mapping[str, pd.DataFrame]: ...
    def figures(self) -> Mapping[str, Figure]: ...
    def answer(self) -> str: ...
    def details(self) -> str: ...
    def write_extra(self, folder: Path) -> None: ...
