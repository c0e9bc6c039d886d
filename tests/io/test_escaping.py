"""Tests that foreign names appear as one visible line everywhere, and never lose finished work."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.cli.console import Speaker, say, say_error
from sae_geometry.explorer.writing import page
from sae_geometry.io.escaping import cell, escaped, printable, shown
from sae_geometry.io.parquet import read_table, write_neuronpedia, write_table
from sae_geometry.results.store import to_json

HOSTILE = {
    "clears the screen": "a\x1b[2J\x1b]0;title\x07",
    "eight-bit control": "a\x9b2Jb\x85c",
    "lines": "a\nerror: b\r\nc\x0bd\u2028e",
    "turned": "gpj.\u202egnp\u2066\u061c\u200f",
    "lone surrogate": "a\ud800b",
    "undecoded bytes": "a\udcff\udcc3\udca9",
    "no character": "a\ufffe\uffff\ufdd0",
    "markup of rich": "[bold red]a[/]",
    "markup of a page": "</script><img src=x onerror=alert(1)>&amp;{{about}}",
    "mathematics": "$\\frac{a}{",
    "formula": "=HYPERLINK(\"http://x\")",
    "formulas": "@SUM(A1)\t+1",
    "full width": "＝1+1",
    "tags": "a\U000e0041\ufeff",
    "long": "x" * 70_000,
    "nothing": "\0\0",
}  # fmt: skip
EACH = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


def is_seen(text: str, most: int | None = 200) -> bool:
    """Return whether a text is one line without control characters or invisible characters."""
    unseen = {"Cc", "Cs", "Cn", "Zl", "Zp"}
    turning = re.search("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text)
    return not turning and not {unicodedata.category(c) for c in text} & unseen and (most is None or len(text) <= most)


@EACH
def test_shown_is_one_visible_line_and_shown_again_the_same(name):
    assert is_seen(shown(name))
    assert shown(shown(name)) == shown(name)
    assert is_seen(escaped(name), None)
    assert escaped(escaped(name)) == escaped(name)
    assert printable(f"a\nb{escaped(name)}").count("\n") == 1


def test_what_is_readable_stays():
    for name in ("résumé", "名前", "👩‍💻", "a b", "x_1.pt", "نام", "naïve café"):
        assert shown(name) == name
    assert shown("a" * 300 + ".pt").endswith("a.pt")


def dictionary(name: str, seed: int = 0) -> sg.Dictionary:
    weight = np.random.default_rng(seed).standard_normal((12, 4))
    return sg.Dictionary.from_decoder(
        weight, latent_axis=0, name=name, hook_point=name, model=name, notes=[name], metadata={"kind": name}
    )


@EACH
def test_a_dictionary_has_names_that_can_be_shown(name):
    d = dictionary(name)
    for text in (d.name, d.hook_point, d.model):
        assert is_seen(text)
    assert is_seen(d.notes[0], 1000)
    assert is_seen(d.metadata["kind"], None)
    assert all(is_seen(line, None) for line in repr(d).split("\n"))
    assert is_seen(d.renamed(name).name)


@EACH
def test_finished_work_is_saved_and_read_whatever_the_name(tmp_path, name):
    both = dictionary(name), dictionary("other", 1)
    c = sg.compare(*both, matching="mutual", turns=0, allow_mismatch=True)
    drawn = name in (HOSTILE["undecoded bytes"], HOSTILE["markup of a page"], HOSTILE["mathematics"], HOSTILE["long"])
    # The other figures show no run name, or show it in the same way.
    named = {"partners": c.figures()["partners"]} if drawn else {}
    folder = sg.save(c, tmp_path / "out", formats=["svg"], command=name, figures=named)
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    assert shown(name) in set(table["run"])
    assert summary["inputs"]["a"]["name"] == shown(name)
    raw = (folder / "summary.json").read_text(encoding="utf-8")
    assert all(is_seen(line, None) for line in raw.split("\n"))
    for picture in folder.glob("figures/*.svg"):
        ElementTree.fromstring(picture.read_text(encoding="utf-8"))
    assert all(is_seen(line, None) for line in str(c).split("\n"))


@EACH
def test_a_page_is_html_and_its_csv_harmless(name):
    from explorer_cases import regions, summary, table

    from sae_geometry.explorer.contents import Contents

    named = re.sub("[\ud800-\udfff]", lambda found: shown(found[0]), name)  # Tables cannot hold lone surrogates.
    names = [named, "b"]
    frame = table(names, 10)
    said = summary(names, 10, caveats=[name], command=name, created=name, software={name: name})
    said["inputs"][0] |= {"model": name, "hook_point": name, "address": name, "notes": [name]}
    html = page(Contents(frame, said, regions(frame)))
    html.encode("utf-8")
    assert "<img" not in html
    title = re.search("<title>(.*)</title>", html)[1]
    assert is_seen(title, 1000)
    about = json.loads(re.search(r'id="about">(.*?)</script>', html, re.S)[1])
    assert about["runs"][0]["name"] == shown(named)
    assert is_seen(about["caveats"][0], None)


@EACH
def test_tables_take_the_name(tmp_path, name):
    frame = pd.DataFrame({"run": [shown(name)] * 3, "latent_id": [1, 2, 3], "x": [0.0] * 3, "y": [1.0] * 3})
    write_table(frame, tmp_path / "x.parquet")
    assert read_table(tmp_path, "x.parquet")["run"].tolist() == [shown(name)] * 3
    write_neuronpedia(frame, tmp_path / "x.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 4
    assert not rows[1][0].startswith(("=", "+", "-", "@", "\uff1d"))
    assert rows[1][0] in (shown(name), f"'{shown(name)}")


def test_only_what_begins_like_a_formula_gets_a_quote():
    assert [cell(x) for x in ("=1", "+1", "-1", "@a", "＝1", "a=1", "1", "")] == [
        "'=1", "'+1", "'-1", "'@a", "'＝1", "a=1", "1", "",
    ]  # fmt: skip


@EACH
def test_the_terminal_gets_lines_that_it_does_not_obey(capsys, name):
    say(f"first {name}")
    say_error(f"no such file: {name}")
    Speaker(quiet=False).note(f"{name}: noted")
    Speaker(quiet=False).resolved(f"{name} → {name}")
    said, errors = capsys.readouterr()
    assert all(is_seen(line, None) for line in (said + errors).split("\n"))
    errors = [line for line in errors.split("\n") if line.startswith("error: ")]
    assert 1 <= len(errors) <= 2  # A note may contain a line that only looks like an error.
    assert len(errors[0]) < 1100


@EACH
def test_json_on_the_terminal_is_the_same_value_and_safe(name):
    text = to_json({"name": name})
    assert all(is_seen(line, None) for line in text.split("\n"))
    if not re.search("[\ud800-\udfff]", name):
        assert json.loads(text)["name"] == name


def test_progress_is_no_markup(monkeypatch):
    from rich.progress import TextColumn

    made = []
    monkeypatch.setattr("rich.progress.TextColumn", lambda *given, **how: made.append(how) or TextColumn(*given, **how))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Speaker(quiet=False).bar() as tick:
        tick("[bold]x[/nothing]\x1b[2J", 0.5)
    assert made == [{"markup": False}]


@pytest.mark.skipif(os.name == "nt", reason="file names are not bytes on Windows")
def test_a_file_of_any_name_is_compared_inspected_and_shown(tmp_path):
    names = [b"a\x1b[2J\nb", b"\xff\xfe", "\u202egnp".encode(), b"[red]x", b"$x_{"]
    for at, name in enumerate(names):
        with open(os.fsencode(tmp_path) + b"/" + name + b".npy", "wb") as file:
            np.save(file, np.random.default_rng(at).standard_normal((9, 3)))
    env = {**os.environ, "PYTHONPATH": str(Path(sg.__file__).parents[1]), "MPLBACKEND": "Agg"}
    paths = [os.fsencode(tmp_path) + b"/" + name + b".npy" for name in names]
    python = [os.fsencode(sys.executable), b"-m", b"sae_geometry"]
    for command in ([b"compare", *paths[:2], b"--format", b"svg", b"-o", b"out"], [b"inspect", paths[2]]):
        made = subprocess.run([*python, *command], cwd=tmp_path, env=env, capture_output=True, timeout=300)
        assert made.returncode == 0, made.stderr
        for line in (made.stdout + made.stderr).decode("utf-8").split("\n"):
            assert is_seen(line, None), line
    missing = subprocess.run(
        [*python, b"inspect", b"./no\x1b[2J\nsuch.pt"], cwd=tmp_path, env=env, capture_output=True, timeout=300
    )
    assert missing.returncode == 1
    assert missing.stderr.decode().count("\n") == 1
    assert is_seen(missing.stderr.decode().strip(), None)


def test_tensors_and_listings_are_shown_escaped(tmp_path):
    import safetensors.numpy

    weight = np.eye(4, 6, dtype=np.float32)
    safetensors.numpy.save_file({"decoder.weight": weight, "z\x1b[2J\nx": weight}, tmp_path / "s.safetensors")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "s.safetensors"), "--latent-axis", "0"])
    assert result.exit_code in (0, 1, 2)
    assert all(is_seen(line, None) for line in result.output.split("\n"))
