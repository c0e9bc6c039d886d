"""Tests of the explorer's file: its content, its refusals, and its commands."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from explorer_cases import HOSTILE, regions, results, summary, table
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry import explorer
from sae_geometry.cli import app
from sae_geometry.explorer.contents import Contents
from sae_geometry.explorer.writing import SCRIPTS

pytest.importorskip("plotly", reason="the explorer needs plotly")
NARROW = "demo:local-narrow-seed0"


@pytest.fixture
def folder(tmp_path) -> Path:
    return results(tmp_path / "umap", ["a", "b"], 30)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAE_GEOMETRY_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def parts(html: str) -> dict[str, str]:
    """Return the text of each script of a page, by its id."""
    found = re.findall(r"<script(?:[^>]*id=\"([\w-]+)\")?[^>]*>(.*?)</script>", html, re.S)
    return {name or "script": text for name, text in found}


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_page_holds_everything_and_points_nowhere(folder):
    html = sg.explore(folder).read_text(encoding="utf-8")
    found = parts(html)
    assert set(found) == {"plotly-packed", "arrays-packed", "texts-packed", "about", "script"}
    from plotly.offline import get_plotlyjs

    assert unpacked(found["plotly-packed"]).decode() == get_plotlyjs()
    assert "plotly.js v" in html
    assert "MIT license" in html
    outside = re.findall(
        r"""(?:src|href|action|data)\s*=\s*["']?(?!data:|#)([^"'\s>]+)""", html.replace(found["script"], "")
    )
    assert outside == []
    assert "{{" not in html.replace(found["script"], "")
    about = json.loads(found["about"])
    assert [r["name"] for r in about["runs"]] == ["a", "b"]
    assert about["runs"][0]["neuronpedia"] == "https://www.neuronpedia.org/gpt2-small/6-res-jb"
    assert about["runs"][1]["neuronpedia"] is None
    assert about["evidence"] == "trustworthiness 0.912; neighbors preserved 34%"


def test_the_policy_knows_the_scripts_and_forbids_the_network(folder):
    html = sg.explore(folder).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    found = parts(html)
    for script in (found["script"].encode(), unpacked(found["plotly-packed"])):
        assert base64.b64encode(hashlib.sha256(script).digest()).decode() in policy
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]


def test_the_same_results_give_the_same_page(folder, tmp_path):
    one = sg.explore(folder, tmp_path / "one.html").read_bytes()
    assert sg.explore(folder, tmp_path / "two.html").read_bytes() == one


def test_names_that_are_markup_stay_text(tmp_path):
    names = [HOSTILE, "b"]
    folder = results(tmp_path / "umap", names, 20, caveats=[HOSTILE], command=HOSTILE)
    html = sg.explore(folder).read_text(encoding="utf-8")
    assert "<img" not in html
    assert set(parts(html)) == {"plotly-packed", "arrays-packed", "texts-packed", "about", "script"}
    assert json.loads(parts(html)["about"])["runs"][0]["name"] == HOSTILE
    assert "&lt;/script&gt;&lt;img" in html  # the title


def test_the_scripts_close_no_tag_early():
    page = Path(explorer.__file__).parent / "page"
    assert sorted(SCRIPTS) == sorted(p.name for p in page.glob("*.js"))
    for path in page.glob("*.js"):
        assert "</script" not in path.read_text(encoding="utf-8").lower()
        assert "innerHTML" not in path.read_text(encoding="utf-8")
    assert "</style" not in (page / "explorer.css").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize("runs", [1, 8])
def test_fifty_thousand_points_stay_below_ten_megabytes(runs):
    names = [f"run{r}" for r in range(runs)]
    frame = table(names, 50_000 // runs)
    html = explorer.page(Contents(frame, summary(names, 50_000 // runs), regions(frame)))
    assert 2e6 < len(html.encode()) < 10e6


def test_the_evidence_is_shown_in_one_line_and_must_be_there():
    frame, record = table(["a"], 20), summary(["a"], 20)
    assert Contents(frame, record | {"evidence_lines": ["one", "two"]}, {}).about()["evidence"] == "one; two"
    with pytest.raises(ValueError, match="rerun sae-geometry"):
        Contents(frame, {k: v for k, v in record.items() if k != "evidence_lines"}, {}).about()


def test_an_embedding_and_the_folder_it_was_saved_to_show_the_same(demo, tmp_path):
    e = sg.umap([demo["local-narrow-seed0"], demo["local-narrow-seed0"].renamed("again")], n_epochs=5)
    direct = explorer.contents.contents_of(e)
    sg.save(e, tmp_path / "saved", formats=["png"], add=explorer.add_page)
    saved = explorer.contents.read_contents(tmp_path / "saved")
    one, two = direct.about(), saved.about()
    for about in (one, two):
        del about["command"], about["created"]
    assert json.dumps(one, default=str) == json.dumps(two, default=str)
    pd.testing.assert_frame_equal(direct.table, saved.table, check_dtype=False)
    assert one["evidence"] == "; ".join(e.evidence.lines())
    assert (tmp_path / "saved" / "explorer.html").stat().st_size > 1e6
    assert sg.explore(e, tmp_path / "direct.html") == tmp_path / "direct.html"


# ---- what is refused -----------------------------------------------------------------------------------------------


def edited(folder: Path, **changes) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_file_is_not_overwritten_unless_asked(folder):
    target = folder / "explorer.html"
    target.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        sg.explore(folder)
    assert target.read_text() == "mine"
    sg.explore(folder, overwrite=True)
    assert target.stat().st_size > 1e6
    assert {p.name for p in folder.iterdir()} == {"explorer.html", "regions.json", "summary.json", "umap.parquet"}


def test_a_page_that_fails_leaves_nothing(folder, monkeypatch):
    def fail(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RuntimeError, match="no room"):
        sg.explore(folder)
    assert {p.name for p in folder.iterdir()} == {"regions.json", "summary.json", "umap.parquet"}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_page_has_the_permissions_of_the_umask(folder, mask):
    before = os.umask(mask)
    try:
        assert sg.explore(folder).stat().st_mode & 0o777 == 0o666 & ~mask
    finally:
        os.umask(before)


def test_an_embedding_needs_a_path(demo):
    e = sg.umap([demo["local-narrow-seed0"]], n_epochs=1)
    with pytest.raises(ValueError, match="name the file"):
        sg.explore(e)


def test_without_plotly_the_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"pip install 'sae-geometry\[interactive\]'"):
        sg.explore(folder)


def one_sentence(result) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return lines[0]


def _table(folder: Path, change) -> None:
    change(pd.read_parquet(folder / "umap.parquet")).to_parquet(folder / "umap.parquet", index=False)


@pytest.mark.parametrize(
    ("spoil", "code", "part"),
    [
        (lambda f: (f / "summary.json").unlink(), 1, "no summary.json"),
        (lambda f: (f / "summary.json").write_text("{"), 2, "is not JSON"),
        (lambda f: (f / "summary.json").write_text("[]"), 2, "JSON object"),
        (lambda f: edited(f, kind="Comparison"), 2, "holds a result of kind Comparison"),
        (lambda f: edited(f, schema_version=0), 2, "schema version 0"),
        (lambda f: edited(f, schema_version=99), 2, "schema version 99"),
        (lambda f: edited(f, points={}), 2, "does not name the runs"),
        (lambda f: edited(f, points={"a": 30, "c": 30}), 2, "lacks the columns max_cosine:c"),
        (lambda f: edited(f, points={"a": 30, "b": 31}), 2, "differ in runs or counts"),
        (lambda f: (f / "umap.parquet").unlink(), 1, "no umap.parquet"),
        (lambda f: (f / "umap.parquet").write_text("x"), 2, "cannot be read as a table of results"),
        (lambda f: _table(f, lambda t: t.drop(columns=["mutual:b", "x"])), 2, "lacks the columns x, mutual:b;"),
        (lambda f: (f / "explorer.html").mkdir(), 2, "is a folder; give a file"),
    ],
)  # fmt: skip
def test_other_results_are_refused_in_one_sentence(run, folder, spoil, code, part):
    spoil(folder)
    result = run("explore", folder)
    assert result.exit_code == code, result.stderr
    assert part in one_sentence(result)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["nowhere"], 1, "does not exist"),
        (["umap/umap.parquet"], 1, "is a file"),
        (["umap", "-o", "not/there.html"], 1, "there is no folder not"),
    ],
)
def test_where_to_and_where_from(run, folder, arguments, code, part):
    result = run("explore", *arguments)
    assert result.exit_code == code
    assert part in one_sentence(result)


def test_a_folder_without_regions_or_frequencies_is_shown_all_the_same(folder):
    (folder / "regions.json").unlink()
    _table(folder, lambda t: t.drop(columns=["region", "frequency"]))
    about = json.loads(parts(sg.explore(folder).read_text(encoding="utf-8"))["about"])
    assert about["regions"] == []


# ---- the commands --------------------------------------------------------------------------------------------------


def test_explore_says_where_the_file_is(run, folder):
    result = run("explore", folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"saved to {folder}/explorer.html\n"
    assert re.fullmatch(r"one HTML file of \d\.\d MB: open it in a browser, or send it to a colleague\n", result.stderr)
    assert run("explore", folder).exit_code == 2
    quiet = run("explore", folder, "-o", "other.html", "-q")
    assert (quiet.stdout, quiet.stderr) == ("saved to other.html\n", "")


def test_umap_writes_the_page_too(run):
    result = run("umap", NARROW, "--n-epochs", "5", "--format", "png", "--html", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert "explorer.html" in result.stdout
    about = json.loads(parts(Path("out/explorer.html").read_text(encoding="utf-8"))["about"])
    assert about["command"] == json.loads(Path("out/summary.json").read_text())["command"]
    assert about["runs"][0]["count"] == 512


def test_umap_without_plotly_stops_before_it_works(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = run("umap", NARROW, "--html", "-o", "out")
    assert result.exit_code == 1
    assert "sae-geometry[interactive]" in one_sentence(result)
    assert not Path("out").exists()


def test_the_help_of_explore_is_there_at_once():
    code = (
        "import sys\nfrom sae_geometry.cli import main\nsys.argv = ['sae-geometry', 'explore', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--overwrite" in done.stdout
    assert not {"torch", "pandas", "plotly", "matplotlib", "umap"} & set(done.stderr.splitlines())
