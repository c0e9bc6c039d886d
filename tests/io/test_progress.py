"""Tests of progress bars: one per stage, with a name and the remaining time, and as plain text in notebooks."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

from rich.console import Console

from sae_geometry.io import progress as ours


def test_a_notebook_shows_the_bars_without_widgets_and_takes_them_away(monkeypatch):
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))
    here = SimpleNamespace(display=lambda data, raw, display_id: handle)
    monkeypatch.setitem(sys.modules, "IPython.display", here)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(ours, "_SECONDS", 0)
    with ours.progress_bars() as progress:
        progress("similarities", 0.5)
        progress("chance", 0.25)
    first, both, end = shown
    assert re.search(r"similarities +━+ +50% ", first)
    assert [line.split()[0] for line in both.splitlines()] == ["similarities", "chance"]
    assert re.search(r"chance .*25% -:--:--", both)
    assert end == ""


def test_on_a_terminal_nothing_is_left_of_the_bars(capsys, monkeypatch):
    monkeypatch.setattr(Console, "is_terminal", True)
    with ours.progress_bars() as progress:
        progress("matching · gap 0.1", 0.5)
        progress("matching · gap 0.01", 0.9)
    out, err = capsys.readouterr()
    assert out == ""
    assert "gap 0.01" in err
    assert err.count("\x1b[2K") >= 1  # The line is cleared.
