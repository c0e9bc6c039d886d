"""`--runs demo` of all three reproductions, in one process: every figure, every sidecar, the table."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from reproduction_cases import FIGURES, MAINS, call

import sae_geometry as sg
from analyses.common.published import read_expected
from analyses.common.runs import read_runs

ROOT = Path(sg.__file__).parents[1]
ARGUMENTS = ("--runs", "demo", "--n-epochs", "20", "--device", "cpu")
EACH = [(name, figure) for name, figures in FIGURES.items() for figure in figures]


@dataclass(frozen=True)
class Done:
    """What came of one command."""

    folder: Path
    codes: dict[str, int]
    tables: dict[str, str]
    notes: dict[str, str]


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Done:
    """All three, once for all workers, into one folder; few epochs, since the UMAP's layout is not what is tested."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "reproductions"
    with FileLock(f"{shared}.lock"):
        record = shared / "done.json"
        if not record.exists():
            said = {name: call(main, *ARGUMENTS, "--out", str(shared)) for name, main in MAINS.items()}
            record.write_text(json.dumps(said))
        said = json.loads(record.read_text())
    return Done(shared, *({name: answer[at] for name, answer in said.items()} for at in range(3)))


@pytest.fixture
def mine(done: Done, tmp_path: Path) -> Path:
    """A copy of the folder, to be spoilt."""
    return Path(shutil.copytree(done.folder, tmp_path / "figures"))


def test_all_three_succeed(done: Done) -> None:
    assert done.codes == dict.fromkeys(MAINS, 0)


@pytest.mark.parametrize(("name", "figure"), EACH)
def test_every_figure_is_there_with_its_sidecar(done: Done, name: str, figure: str) -> None:
    stem = done.folder / f"{name}-{figure}"
    with Image.open(stem.with_suffix(".png")) as picture:
        assert picture.width >= 800
        assert "demo:" in picture.text["Description"]  # type: ignore[attr-defined]
        shades = np.asarray(picture.convert("L"))
    assert (shades < 128).mean() > 0.002, "something is drawn"
    assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    sidecar = json.loads(stem.with_suffix(".json").read_text())
    assert {"command", "commit", "version", "seed", "runs"} <= sidecar.keys()
    assert sidecar["command"] == f"python -m analyses.{name} --runs demo --n-epochs 20 --only {figure}"
    assert sidecar["runs"]
    for run in sidecar["runs"]:
        assert sg.load(run["address"], run.get("latents", "alive")).fingerprint == run["fingerprint"]


def test_no_figure_is_left_over_and_the_package_commits_the_same_names(done: Done) -> None:
    made = {p.stem for p in done.folder.glob("*.png")}
    assert made == {f"{name}-{figure}" for name, figure in EACH}
    kept = {p.stem for p in (ROOT / "figures").glob("*.png")}
    assert made <= kept, "run: make figures"
    for path in (ROOT / "figures").glob("*-*.p*"):
        assert path.stat().st_size < 400_000, f"{path.name} is large"


@pytest.mark.parametrize("name", MAINS)
def test_the_table_names_every_claim_and_compares_none(done: Done, name: str) -> None:
    table = done.tables[name]
    for claim in read_expected(ROOT / "analyses" / name / "expected.toml"):
        (line,) = [row for row in table.splitlines() if row.startswith(f"{claim.name}  ")]
        assert "not comparable (demo)" in line or "not available" in line
    assert " pass" not in table
    assert " fail" not in table
    assert "not comparable (demo)" in table
    verdicts = json.loads((done.folder / f"{name}-published.json").read_text())["verdicts"]
    assert {v["outcome"] for v in verdicts} <= {"not comparable (demo)", "not available", "nothing published"}


def test_our_numbers_are_those_of_the_package(done: Done, demo: dict[str, sg.Dictionary]) -> None:
    verdicts = {v["name"]: v["ours"] for v in _verdicts(done, "e2e_paper")}
    across = sg.compare(demo["local-seed0"], demo["local-seed1"]).a_to_b.mmcs
    assert verdicts["across-seeds/6/local"].startswith(f"{across:.4f} ")
    within = [sg.compare_within(demo[n]).mmcs for n in ("local-seed1", "e2e-seed1")]
    assert verdicts["within/6/local-e2e"].startswith(f"{within[0] - within[1]:.4f} ")
    assert verdicts["alive/2/local"] == "1,491"
    seeds = sg.compare_seeds([sg.load(f"demo:local-seed{k}", "all") for k in (0, 1)], matching="optimal")
    ours = {v["name"]: v["ours"] for v in _verdicts(done, "seed_dependence")}
    assert ours["shared/32768/one-to-one"] == f"{seeds.shared_by_both[0, 1]:.4f}"
    assert ours["same-partner/32768"] == f"{seeds.same_partner[0, 1]:.4f}"
    assert ours["mmcs/32768"].startswith(f"{seeds.mmcs[0, 1]:.4f}")
    consistency = {v["name"]: v["ours"] for v in _verdicts(done, "feature_consistency")}
    assert consistency["pw-mcc/TopK"].startswith(f"{seeds.paired[0, 1]:.4f} ")


def _verdicts(done: Done, name: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((done.folder / f"{name}-published.json").read_text())["verdicts"]
    return found


def test_a_second_call_makes_nothing_again_and_says_the_same(done: Done, mine: Path) -> None:
    pictures = {p: p.stat().st_mtime_ns for p in mine.glob("*.png")}
    for name, main in MAINS.items():
        code, table, notes = call(main, *ARGUMENTS, "--out", str(mine))
        assert (code, table) == (0, done.tables[name])
        assert notes.count("finished before, kept") == len(FIGURES[name])
    assert {p: p.stat().st_mtime_ns for p in mine.glob("*.png")} == pictures


def test_what_was_touched_or_asked_for_otherwise_is_made_again(mine: Path, tmp_path: Path) -> None:
    figure = mine / "e2e_paper-fig3c.png"
    with figure.open("ab") as file:
        file.write(b"scribble")
    notes = call(MAINS["e2e_paper"], *ARGUMENTS, "--out", str(mine), "--only", "fig3c", "--only", "fig3a")[2]
    assert "fig3c: wrote" in notes
    assert "fig3a: finished before, kept" in notes
    assert not figure.read_bytes().endswith(b"scribble")
    notes = call(MAINS["e2e_paper"], "--runs", "demo", "--n-epochs", "21", "--out", str(mine), "--only", "umap2")[2]
    assert "umap2: wrote" in notes, "another parameter, another figure"
    runs = (ROOT / "analyses" / "e2e_paper" / "runs-demo.toml").read_text()
    other = tmp_path / "demo.toml"
    other.write_text(runs.replace("demo:local-seed1", "demo:local-narrow-seed0"))
    notes = call(MAINS["e2e_paper"], "--runs", str(other), "--out", str(mine), "--only", "fig3a")[2]
    assert "fig3a: wrote" in notes, "other weights, another figure"


def test_a_change_of_code_makes_figures_again_but_not_values(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyses.common.steps.code_digest", lambda folder: "another")
    monkeypatch.setattr(sg, "compare", None)  # a sweep would fail
    code, _, notes = call(MAINS["e2e_paper"], *ARGUMENTS, "--out", str(mine), "--only", "fig8")
    assert code == 0
    assert "fig8: wrote" in notes


@pytest.mark.parametrize("name", MAINS)
def test_an_unknown_figure_is_one_sentence_and_the_list(name: str, tmp_path: Path) -> None:
    code, out, err = call(MAINS[name], "--runs", "demo", "--only", "fig99", "--out", str(tmp_path))
    assert code == 2
    assert out == ""
    assert err == f"error: there is no figure 'fig99'; the figures are {', '.join(FIGURES[name])}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MAINS)
def test_the_figures_are_listed(name: str) -> None:
    code, out, _ = call(MAINS[name], "--runs", "demo", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == FIGURES[name]


def test_the_demo_facets_know_what_the_card_says() -> None:
    card = (ROOT / "sae_geometry" / "data" / "demo" / "CARD.md").read_text()
    said = {m[1]: float(m[2]) for m in re.finditer(r"^\| `([\w-]+)` \|.*\| (\d+(?:\.\d+)?) \|$", card, re.M)}
    runs = read_runs(ROOT / "analyses" / "e2e_paper" / "runs-demo.toml").of("facet")
    assert {r.name: r.known["l0"] for r in runs} == said
    assert all("ce_increase" not in r.known for r in runs), "not known, so not said"
