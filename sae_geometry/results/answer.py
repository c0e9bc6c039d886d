"""Base of the results: what follows from the contract, such as saving and showing."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_geometry.pairwise.confounds import confound_audit
from sae_geometry.results.result import Meanings, Result

if TYPE_CHECKING:
    import pandas as pd


class Answer:
    """Base of the results: what follows from `results.result.Result`."""

    def answer(self: Result) -> str:
        """Return the first screen: `repr`, and for a pair the flagged confounds."""
        flagged = confound_audit(*self.dictionaries).flagged if len(self.dictionaries) == 2 else ()
        lines = (textwrap.wrap(f"! {f.check}: {f.effect}", 78, subsequent_indent="  ") for f in flagged)
        return "\n".join([repr(self), *(f"  {line}" for wrapped in lines for line in wrapped)])

    def details(self: Result) -> str:
        """Return everything that is known about the answer, as text: `repr`, and for a pair the confound audit."""
        audit = [str(confound_audit(*self.dictionaries))] if len(self.dictionaries) == 2 else []
        return "\n".join([repr(self), *audit])

    def write_extra(self, folder: Path) -> None:
        """Write files to a results folder that are neither tables nor figures; by default none."""

    @property
    def headline(self) -> str:
        """Return the line of the answer to print in bold; by default none."""
        return ""

    @property
    def sentences(self) -> str:
        """Return the answer as prose, for the top of the report; by default none."""
        return ""

    @property
    def method(self) -> str:
        """Describe in sentences what was computed and how, for a methods section; by default nothing."""
        return ""

    @property
    def meanings(self) -> Meanings | None:
        """Return labels next to latents; None without labels."""
        return None

    def lists(self) -> Mapping[str, pd.DataFrame]:
        """Return the lists of latents that the report shows, by title; by default none."""
        return {}

    def save(self: Result, folder: str | os.PathLike[str], **options: Any) -> Path:
        """Save to a folder; see `sae_geometry.save` for the options."""
        from sae_geometry.results.store import save

        return save(self, folder, **options)

    def report(self: Result) -> str:
        """Return the result as one self-contained HTML page."""
        from sae_geometry.results.report import report_page

        return report_page(self, self.figures())

    def _repr_html_(self: Result) -> str:
        meanings = self.meanings
        return f"<pre>{escape(self.answer())}</pre>{'' if meanings is None else meanings.html()}"
