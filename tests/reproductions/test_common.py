"""Tests of the reproductions' common parts on small cases: files, verdicts, steps, recurrence, modes."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import sae_geometry as sg
from analyses.common.errors import AnalysisError, UnavailableError
from analyses.common.library import Library
from analyses.common.modes import n_modes
from analyses.common.pairs import Pair, Side, recurrence
from analyses.common.published import Expected, Measured, judge, read_expected, table
from analyses.common.runs import Run, read_runs
from analyses.common.similarities import Similarities
from sae_geometry.sources import paper_runs

ROOT = Path(sg.__file__).parents[1]
ANALYSES = ROOT / "analyses"
NAMES = ("e2e_paper", "seed_dependence", "feature_consistency")


def foreign_uses(source: str) -> list[str]:
    """Return the uses of sae_geometry outside its public list."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sae_geometry":
            wrong.append(f"from {node.module} import …")
        if isinstance(node, ast.Import):
            wrong += [
                a.name for a in node.names
                if a.name.startswith("sae_geometry") and (a.name, a.asname) != ("sae_geometry", "sg")
            ]  # fmt: skip
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sg":
            wrong += [] if node.attr in sg.__all__ else [f"sg.{node.attr}"]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sg.plots":
            wrong += [] if node.attr in sg.plots.__all__ else [f"sg.plots.{node.attr}"]
    return wrong


@pytest.mark.parametrize("path", sorted(ANALYSES.rglob("*.py")), ids=lambda p: p.relative_to(ANALYSES).as_posix())
def test_analyses_use_only_the_public_list(path):
    assert foreign_uses(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from sae_geometry.pairwise.matching_result import Matching",
        "import sae_geometry.results.store",
        "import sae_geometry",
        "import sae_geometry as sg\nsg.sweep()",
        "import sae_geometry as sg\nsg.plots.style.INK",
    ],
)
def test_this_test_can_fail(source):
    assert foreign_uses(source)


def test_nothing_imports_the_analyses():
    for path in (ROOT / "sae_geometry").rglob("*.py"):
        assert "analyses" not in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        }


def test_the_papers_runs_are_the_catalogs():
    runs = read_runs(ANALYSES / "e2e_paper" / "runs.toml").runs
    known = paper_runs()
    assert {r.address for r in runs} == set(known)
    for r in runs:
        paper = known[r.address]
        assert f"wandb:{r.id}#samples_400000.pt" == paper.wandb
        assert r.address == f"paper:e2e/{r.layer}/{r.kind}/{r.role}"
        assert paper.hook == f"blocks.{r.layer}.hook_resid_pre"


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_belongs_to_a_step_and_has_a_place(name):
    module = __import__(f"analyses.{name}.reproduce", fromlist=["ANALYSIS"])
    runs = read_runs(ANALYSES / name / "runs-demo.toml")
    from analyses.common.command import Options

    steps = {s.name for s in module.ANALYSIS.plan(runs, Options(None))}
    claims = read_expected(ANALYSES / name / "expected.toml")
    assert claims
    assert {c.step for c in claims} <= steps
    assert all(c.place and c.claim for c in claims)
    assert len({c.name for c in claims}) == len(claims)


def test_published_values_are_those_of_the_papers():
    """A second copy of the numbers exposes a typing error in the first."""
    e2e = {c.name: c for c in read_expected(ANALYSES / "e2e_paper" / "expected.toml")}
    assert (e2e["within/6/local-e2e"].published, e2e["within/6/local-e2e"].interval) == (0.166, (0.163, 0.168))
    assert (e2e["within/6/local-e2e+ds"].published, e2e["within/6/local-e2e+ds"].interval) == (0.04, (0.037, 0.043))
    kinds = {"local": (41, 26, 33), "e2e": (22, 22, 25), "e2e+ds": (18, 15, 25)}
    for kind, thousands in kinds.items():
        for layer, value in zip((2, 6, 10), thousands, strict=True):
            assert e2e[f"alive/{layer}/{kind}"].published == 1000 * value
    seeds = {c.name: c.published for c in read_expected(ANALYSES / "seed_dependence" / "expected.toml")}
    rows = {
        768: (0.7852, 0.7865, 0.9492), 4084: (0.6956, 0.6983, 0.9163), 27648: (0.4346, 0.4390, 0.8049, 0.7162),
        32768: (0.4159, 0.4209, 0.7929, 0.7046), 131072: (0.2758, 0.2820, 0.7019, 0.6341),
    }  # fmt: skip
    for width, row in rows.items():
        names = (f"shared/{width}/one-to-one", f"shared/{width}/double-counting", f"same-partner/{width}")
        assert tuple(seeds[n] for n in (*names, f"mmcs/{width}")[: len(row)]) == row
    shares = (34.8, 7.8, 6.4, 6.0, 5.9, 6.3, 6.9, 8.7, 17.3)
    assert tuple(round(100 * (seeds[f"recurrence/9/{k}"] or 0), 1) for k in range(1, 10)) == shares
    (song,) = read_expected(ANALYSES / "feature_consistency" / "expected.toml")
    assert song.published == 0.8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = 'x'", r"has no \[\[run\]\]"),
        ("color = 1\n[[run]]\naddress='a'\nrole='r'", "must not have color"),
        ("[[run]]\naddress = 'demo:x'", "run 1 of runs.toml needs an address and a role"),
        ("[[run]]\naddress='a'\nrole='r'\nlayr=6", "must not have layr"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_wrong_runs_file_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "runs.toml"
    path.write_text(text)
    with pytest.raises(AnalysisError, match=sentence) as caught:
        read_runs(path)
    assert "\n" not in str(caught.value)


def test_a_runs_file_that_is_not_there_and_a_wrong_claim(tmp_path):
    with pytest.raises(AnalysisError, match="there is no file"):
        read_runs(tmp_path / "none.toml")
    path = tmp_path / "expected.toml"
    path.write_text("[[value]]\nname='a'\nclaim='b'\nplace='c'\nstep='d'\npublished=1.0\ncolor=2")
    with pytest.raises(AnalysisError, match=r"value 1 of expected\.toml lacks tolerance and must not have color"):
        read_expected(path)


CLAIMS = (
    Expected("a", "a is 0.5", "Figure 1", "one", 0.5, 0.01),
    Expected("b", "b is 0.5", "Figure 1", "one", 0.5, 0.01),
    Expected("c", "c is 0.5", "Figure 2", "two", 0.5, 0.01),
    Expected("a", "a is more than b", "Figure 3", "one", above="b"),
    Expected("b", "b is more than a", "Figure 3", "one", above="a"),
    Expected("d", "d is 1", "Figure 9", "three", 1.0, 0.1),
)


def test_verdicts_pass_fail_and_say_why():
    ours = {"a": Measured(0.5099, "[0.50, 0.52]"), "b": Measured(0.4899), "z": Measured(3.0)}
    unpublished = {"two": "the weights are not published"}
    found = judge(CLAIMS, ours, steps=["one", "two"], missing=unpublished, demo=False)
    assert [v.outcome for v in found] == ["pass", "fail", "pass", "fail", "not available", "nothing published"]
    text = table(found)
    assert "a  " in text
    assert "0.0101 off; within 0.01 would pass: b" in text
    assert "the weights are not published: c" in text
    assert "0.5099 [0.50, 0.52] > 0.4899" in text
    assert text.endswith("2 pass, 2 fail, 1 not available, 1 nothing published")
    assert not any("Figure 9" in line for line in text.splitlines()), "a claim of another step should not be judged"


def test_the_demo_compares_nothing():
    values = {"a": Measured(0.5), "b": Measured(0.1)}
    found = judge(CLAIMS, values, steps=["one"], missing={}, demo=True)
    assert {v.outcome for v in found} == {"not comparable (demo)"}


def test_nan_is_not_a_value():
    found = judge(CLAIMS[:1], {"a": Measured(float("nan"))}, steps=["one"], missing={"a": "unknown"}, demo=False)
    assert (found[0].outcome, found[0].ours, found[0].why) == ("not available", "–", "unknown")


def test_a_library_loads_once_and_remembers_what_failed(tmp_path, monkeypatch):
    said: list[str] = []
    library = Library(say=said.append)
    run = Run("demo:local-narrow-seed0", "narrow", "x", kind="local")
    again = Run("demo:local-narrow-seed0", "other name", "y", kind="local")
    assert library.get(run).fingerprint == library.get(again).fingerprint
    assert (library.get(again).name, len(said)) == ("other name", 1)
    assert library.source(again)["name"] == "other name"
    missing = Run(str(tmp_path / "nothing.pt"), "gone", "x")
    with pytest.raises(UnavailableError, match="gone: "):
        library.get(missing)
    monkeypatch.setattr(sg, "load", None)
    with pytest.raises(UnavailableError, match="gone: "):
        library.get(missing)
    with pytest.raises(UnavailableError, match="not published"):
        library.get(Run("", "unpublished", "x"))


def side(partner, paired):
    n = len(partner)
    return Side(np.array(partner), np.array(paired), np.zeros(n), np.zeros(n))


def test_recurrence_by_hand():
    """In runs 0 and 1 latents 0 and 1 are partners on both sides, and in runs 0 and 2 latents 0 and 0; the partners in
    runs 1 and 2 agree in the decoder only, so they do not count.
    """
    pairs = {
        (0, 1): Pair(side([1, 0, 2], [0.9, 0.1, 0.1]), side([1, 2, 0], [0.8, 0.1, 0.2]), 0.1, 0.1),
        (0, 2): Pair(side([0, 1, 2], [0.9, 0.1, 0.1]), side([0, 1, 2], [0.9, 0.3, 0.9]), 0.1, 0.1),
        (1, 2): Pair(side([1, 0, 2], [0.1, 0.95, 0.2]), side([2, 0, 1], [0.1, 0.6, 0.2]), 0.1, 0.1),
    }
    # In run 0 latent 0 counts twice; in run 1 latent 1 and in run 2 latent 0 count once; the other six never.
    assert recurrence([3, 3, 3], pairs).tolist() == pytest.approx([6 / 9, 2 / 9, 1 / 9])


def test_recurrence_agrees_with_a_naive_count(rng):
    """Look every latent of every run up in every other run, in dense one-to-one matchings of random dictionaries."""
    sizes = (9, 7, 8)
    pairs, expected = {}, [np.zeros(n, dtype=int) for n in sizes]
    for i in range(3):
        for j in range(i + 1, 3):
            sides = []
            for _ in range(2):
                k = min(sizes[i], sizes[j])
                partner = np.full(sizes[i], -1)
                partner[rng.permutation(sizes[i])[:k]] = rng.permutation(sizes[j])[:k]
                sides.append(side(partner, np.where(partner >= 0, rng.uniform(0.3, 1, sizes[i]), np.nan)))
            pairs[i, j] = Pair(*sides, 0.1, 0.1)
            dense = [np.full((sizes[i], sizes[j]), -1.0) for _ in range(2)]
            for matrix, s in zip(dense, sides, strict=True):
                for row, col in enumerate(s.partner):
                    if col >= 0:
                        matrix[row, col] = s.paired[row]
            expected[i] += (dense[0].max(axis=1) > 0.7) & (dense[1].max(axis=1) > 0.7)
            expected[j] += (dense[0].max(axis=0) > 0.7) & (dense[1].max(axis=0) > 0.7)
    counts = np.bincount(np.concatenate(expected), minlength=3) / sum(sizes)
    assert recurrence(list(sizes), pairs).tolist() == pytest.approx(counts.tolist())


@pytest.mark.parametrize(("centers", "modes"), [((0.3,), 1), ((0.25, 0.8), 2), ((0.4, 0.45), 1), ((0.15, 0.5, 0.9), 3)])
def test_modes_are_counted(rng, centers, modes):
    values = np.concatenate([rng.normal(c, 0.05, 4000) for c in centers])
    assert n_modes(Similarities(values, 0.1, 0.1, True)) == modes
