"""Base of the results: what follows from the contract, such as saving and showing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.pairwise.confounds import ConfoundAudit, confound_audit
from sae_geometry.results.result import Meanings, Result
from sae_geometry.results.warnings import warning_lines, wrapped


class _Worded(Result, Protocol):
    def _lines(self) -> list[str]: ...
    def _audit(self) -> ConfoundAudit | None: ...


class Answer:
    """Base of the results: what follows from `results.result.Result`."""

    def _lines(self) -> list[str]:
        """Return the numbers of the answer as lines of text; by default the kind of result alone."""
        return [type(self).__name__]

    def _audit(self: Result) -> ConfoundAudit | None:
        """Return the confound audit of a pair; None for other numbers of dictionaries."""
        return confound_audit(*self.dictionaries) if len(self.dictionaries) == 2 else None

    def __repr__(self: _Worded) -> str:
        audit = self._audit()
        flagged = () if audit is None else tuple(f.text for f in audit.flagged)
        clean = None if audit is None else len(audit.findings) - len(flagged)
        said = "\n".join(self._lines())
        caveats = [c for c in self.caveats if c not in said]
        return "\n".join([*wrapped(said.split("\n")), *warning_lines(caveats, flagged, clean=clean)])

    def answer(self: Result) -> str:
        """Return the first screen: lines of 80 characters, and what limits the conclusion."""
        return repr(self)

    def details(self: _Worded) -> str:
        """Return everything that is known about the answer, as text, with all caveats and the audit of a pair."""
        audit = self._audit()
        said = self._lines()
        said += [f"  caveat: {c}" for c in self.caveats if c not in "\n".join(said)]
        return "\n".join(said if audit is None else [*said, str(audit)])

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


class PairAnswer(Answer):
    """Base of the results on two dictionaries, A and B."""

    a: Dictionary
    b: Dictionary

    @property
    def dictionaries(self) -> tuple[Dictionary, Dictionary]:
        """Return A and B."""
        return self.a, self.b
