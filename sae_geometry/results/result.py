"""The contract of every result: numbers, tables, figures, text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pandas as pd

from sae_geometry.dictionary import Dictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SCHEMA_VERSION = 2  # of summary.json and regions.json


@runtime_checkable
class Meanings(Protocol):
    """Labels next to latents, as a result shows them."""

    def lines(self) -> list[str]: ...
    def few_lines(self, room: int) -> list[str]: ...
    def html(self) -> str: ...
    def summary(self) -> dict[str, Any]: ...


@runtime_checkable
class Result(Protocol):
    """Result of a question, with everything that saving, reporting and the command line take from it.

    `repr` is the answer on one screen, `headline` its most important line, `sentences` the same as prose; `details` is
    everything that is known about it. `tables` are saved as Parquet; `lists`, which the report shows, as CSV.
    `results.answer.Answer` has whatever follows from the rest.
    """

    @property
    def dictionaries(self) -> Sequence[Dictionary]: ...
    @property
    def caveats(self) -> Sequence[str]: ...
    @property
    def headline(self) -> str: ...
    @property
    def sentences(self) -> str: ...
    @property
    def meanings(self) -> Meanings | None: ...
    @property
    def method(self) -> str: ...
    def summary(self) -> dict[str, Any]: ...
    def tables(self) -> Mapping[str, pd.DataFrame]: ...
    def figures(self) -> Mapping[str, Figure]: ...
    def lists(self) -> Mapping[str, pd.DataFrame]: ...
    def answer(self) -> str: ...
    def details(self) -> str: ...
    def write_extra(self, folder: Path) -> None: ...
