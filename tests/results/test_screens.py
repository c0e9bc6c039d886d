"""Tests of the first screen of every result: at most 20 lines of 80 cells, one of them in bold, without the audit."""

from __future__ import annotations

import itertools
from dataclasses import fields, is_dataclass, replace
from html import escape
from typing import Any

import numpy as np
import pytest
from every_result import results

import sae_geometry as sg
from sae_geometry.cli.outputs import folder_names, say_screen
from sae_geometry.comparisons.pair_result import Comparison
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import cells, shown
from sae_geometry.io.formatting import aligned, wrap
from sae_geometry.results.answer import Answer
from sae_geometry.results.report import report_page

# These have no labels, so that `answer` is the whole screen.
NAMES = {"plain": "{}", "letters": "W" * 29 + "{}" + "M" * 30, "wide": "辞" * 59 + "{}"}


def renamed(value: Any, form: str, numbers: Any) -> Any:
    """Rename the dictionaries of a result and drop its labels."""
    if isinstance(value, Dictionary):
        return replace(value.renamed(form.format(next(numbers))), labels=None)
    if isinstance(value, tuple) and value and isinstance(value[0], Dictionary | Comparison):
        return tuple(renamed(v, form, numbers) for v in value)
    if is_dataclass(value) and isinstance(value, Answer):
        held = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return replace(value, **{name: renamed(v, form, numbers) for name, v in held.items()})
    return value


def check(name: str, lines: list[str]) -> None:
    assert len(lines) < 20, name  # The twentieth line names the folder.
    assert max(map(cells, lines)) <= 80, name


@pytest.mark.parametrize("form", NAMES.values(), ids=NAMES)
def test_every_answer_is_one_screen_with_one_emphasis(form):
    for name, (_, made) in results().items():
        result = renamed(made, form, itertools.count())
        lines = result.answer().split("\n")
        check(name, lines)
        assert lines.count(result.headline) == 1, name
        assert not any("alive (" in line for line in lines), name
        caveats = [line for line in lines if line.startswith("  ! ")]
        assert len(caveats) == len(set(caveats)) <= 2, name


def test_every_screen_has_room_for_labels(capsys):
    for name, (_, result) in results().items():
        say_screen(result)
        check(name, capsys.readouterr().out.rstrip("\n").split("\n"))


def test_every_report_has_the_answer_in_prose_and_tables_to_sort():
    for name, (_, result) in results().items():
        text = result.sentences
        assert text.endswith("."), name
        assert 60 < len(text) < 600, name
        assert "nan" not in text, name
        page = report_page(result, {})
        assert f'<p class="answer">{escape(text)}</p>' in page, name
        assert '<th><button type="button"' in page, name


@pytest.mark.parametrize("n", [2, 3, 4, 5, 12])
def test_any_number_of_runs_fits_the_screen(n, rng):
    base = rng.standard_normal((30, 12))
    runs = [
        sg.Dictionary.from_decoder(
            (base + 0.2 * rng.standard_normal(base.shape))[: 30 - k], latent_axis=0, name=NAMES["wide"].format(k)
        )
        for k in range(n)
    ]
    found = sg.seeds(runs)
    lines = found.answer().split("\n")
    check(f"{n} runs", lines)
    assert f"found in all {n} " in found.headline
    assert "one only" in "\n".join(lines)


def test_a_folder_has_all_names_in_few_characters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(next(folder_names(None, "compare", ["a/b", "c"]))) == "compare-a_b-c"
    long = str(next(folder_names(None, "compare", ["W" * 60 + "1", "辞" * 60])))
    assert len(long.encode()) <= 54
    assert long.startswith("compare-WWW")
    assert long.endswith("-" + "辞" * 7)


def test_wide_characters_take_two_cells():
    assert aligned([("辞書", "a"), ("b", "c")]) == ["辞書  a", "b     c"]
    assert [cells(line) for line in wrap("辞 " * 20, 30)] == [29, 29]
    assert cells(shown("辞" * 60, 20)) == 19
    assert np.all([cells(shown("a" * n, 20)) == min(n, 20) for n in range(30)])
