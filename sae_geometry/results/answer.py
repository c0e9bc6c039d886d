"""Base classes of results, which implement saving, display and reports."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.pairwise.confounds import ConfoundAudit, confound_audit
from sae_geometry.results.result import Meanings, Result
from sae_geometry.results.warnings import screen, wrapped


class _Worded(Result, Protocol):
    def _lines(self) -> list[str]: ...
    def _definitions(self) -> list[str]: ...
    def _audit(self) -> ConfoundAudit | None: ...
    def first_screen(self, more: Sequence[str] = ()) -> str: ...
    def _screen(self, lines: Sequence[str], flagged: Sequence[str] = (), clean: int | None = None) -> str: ...


class Answer:
    """Base class of results: defaults for the methods of `results.result.Result`."""

    def _lines(self) -> list[str]:
        """Return the lines of the printed summary: comparison, answer, further numbers; by default the class name."""
        return [type(self).__name__]

    def _definitions(self) -> list[str]:
        """Return the lines that only `details` adds, such as definitions; empty by default."""
        return []

    def _audit(self: Result) -> ConfoundAudit | None:
        """Return the confound audit if the result has exactly two dictionaries, else None."""
        return confound_audit(*self.dictionaries) if len(self.dictionaries) == 2 else None

    def __repr__(self: _Worded) -> str:
        return self.first_screen()

    def first_screen(self: _Worded, more: Sequence[str] = ()) -> str:
        """Return the printed summary: the answer, the lines of `more`, and the warnings."""
        audit = self._audit()
        flagged = () if audit is None else tuple(f.text for f in audit.flagged)
        return self._screen(
            [*self._lines(), *more], flagged, None if audit is None else len(audit.findings) - len(flagged)
        )

    def _screen(self: Result, lines: Sequence[str], flagged: Sequence[str] = (), clean: int | None = None) -> str:
        """Return the lines and the warnings as text, short enough for labels to follow if a dictionary has any."""
        said = "\n".join(lines)
        caveats = [c for c in self.caveats if (c.partition(": ")[2] or c) not in said]
        columns = [d.labels.frame.columns for d in self.dictionaries if d.labels is not None]
        below = 0 if not columns else 7 if any("explanation" in c for c in columns) else 4
        return "\n".join(screen(lines, caveats, flagged, clean=clean, below=below))

    def answer(self: Result) -> str:
        """Return the printed summary, in lines of up to 80 characters: the answer and its warnings."""
        return repr(self)

    def details(self: _Worded) -> str:
        """Return the answer with its definitions and caveats as text and, for a pair, the confound audit."""
        audit = self._audit()
        said = [*self._lines(), *self._definitions()]
        said += [f"  caveat: {c}" for c in self.caveats if c not in "\n".join(said)]
        return "\n".join(said if audit is None else [*said, str(audit)])

    def write_extra(self, folder: Path) -> None:
        """Write any files other than tables and figures to a results folder; by default, do nothing."""

    @property
    def headline(self: _Worded) -> str:
        """Return the line of the answer to print in bold; by default the second line."""
        return next(iter(wrapped(self._lines()[1:2])), "")

    @property
    def sentences(self) -> str:
        """Return the answer as prose, for the top of the report; empty by default."""
        return ""

    @property
    def method(self) -> str:
        """Describe in sentences what was computed and how, for a methods section; empty by default."""
        return ""

    @property
    def meanings(self) -> Meanings | None:
        """Return the labels of selected latents; None if there are no labels."""
        return None

    def lists(self) -> Mapping[str, pd.DataFrame]:
        """Return the lists of latents that the report shows, by name; empty by default."""
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
    """Base class of results about two dictionaries, A and B."""

    a: Dictionary
    b: Dictionary

    @property
    def dictionaries(self) -> tuple[Dictionary, Dictionary]:
        return self.a, self.b
