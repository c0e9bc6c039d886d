"""Tests of many runs: pairs against `compare`, recurrence and matrices by definition, and what is shown."""

from __future__ import annotations

import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from seeds_cases import run
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.pairwise.grouping import groups_of
from sae_geometry.sources.demo import DEMO_FOLDER

FOUR = [f"demo:{kind}-seed{k}" for kind in ("local", "e2e") for k in (0, 1)]


@pytest.fixture(scope="module")
def four(demo):
    """Return the first 400 latents of each demo run, because all of them take seven times as long."""
    runs = [demo[a.removeprefix("demo:")] for a in FOUR]
    return sg.seeds([d.select(d.latent_ids[:400].numpy()) for d in runs])


@pytest.fixture(scope="module")
def whole(demo):
    return sg.seeds([demo[a.removeprefix("demo:")] for a in FOUR])


def test_every_pair_is_what_compare_has(whole):
    four = whole
    c = sg.compare(four.runs[1], four.runs[2], "optimal")  # The other pairs would take seconds and test the same code.
    for i, j, nearest, paired in ((1, 2, c.nearest_a_to_b, c.a_to_b), (2, 1, c.nearest_b_to_a, c.b_to_a)):
        assert four.mmcs[i, j] == nearest.mmcs
        assert four.chance[i, j] == nearest.chance
        assert four.paired[i, j] == pytest.approx(paired.mean_similarity, abs=1e-12)
        assert four.shared[i, j] == pytest.approx(paired.fraction_above(0.7))
        assert four.significant[i, j] == pytest.approx(nearest.significant_fraction)
    assert np.isnan(np.diag(four.mmcs)).all()
    assert (four.mmcs[0, 1], four.mmcs[1, 0]) == (pytest.approx(0.4633, abs=1e-3), pytest.approx(0.4850, abs=1e-3))
    assert four.paired[0, 1] == four.paired[1, 0] == pytest.approx(0.4211, abs=1e-3)


def test_orphans_say_in_how_many_runs_they_are_significant(four):
    runs = four.runs
    before, *after = (sg.compare(runs[min(1, k)], runs[max(1, k)]) for k in (0, 2, 3))
    times = np.sum([before.b_to_a.significant, *(c.a_to_b.significant for c in after)], axis=0)
    np.testing.assert_array_equal(four.significant_in[1], times)
    table = four.tables()["orphans"]
    assert len(table) == len(four.consensus.orphans_table())
    mine = table[table.run == runs[1].name]
    position = np.searchsorted(runs[1].latent_ids.numpy(), mine.latent_id)
    np.testing.assert_array_equal(mine.significant_in, times[position])
    share = (table.significant_in > 0).mean()
    assert 0 < share < 1
    assert f"{share:.1%} of them significant elsewhere" in repr(four)


def test_recurrence_by_definition(three):
    s = sg.seeds(three, threshold=0.9)
    expected = np.zeros((3, 3), dtype=int)
    for i, a in enumerate(three):
        times = np.zeros(a.n_latents, dtype=int)
        for j, b in enumerate(three):
            if i != j:
                times += sg.compare(a, b, "optimal").a_to_b.similarity > 0.9
        expected[i] = np.bincount(times, minlength=3)
    np.testing.assert_array_equal(s.recurrence, expected)
    assert s.recurrence_shares.sum() == pytest.approx(1)
    assert s.recurrence[0].tolist() == [15, 5, 10]
    assert s.recurrence[2].tolist() == [20, 0, 10]


def test_kinds_and_intervals(four, of_three):
    assert four.groups == ["local", "local", "e2e", "e2e"]
    text = four.details()
    for part in (
        "says nothing about other seeds",
        "no test",
        "the test needs",
        "MMCS, row → column",
        "Chao2",
        "PW-MCC",
        "expected by chance",
    ):
        assert part in text, part
    own = sg.compare(four.runs[0], four.runs[1])
    values = [own.a_to_b.similarity, own.b_to_a.similarity]
    error = sum(v.std(ddof=1) / np.sqrt(len(v)) for v in values) / 2  # The two directions are not independent.
    interval = four.interval("local")
    assert interval.over == "latents of one pair"
    assert interval.standard_error == pytest.approx(error, rel=0.01)
    assert interval.mean == pytest.approx((own.a_to_b.mmcs + own.b_to_a.mmcs) / 2)
    for what in ("shared", "paired", "significant"):
        i = four.interval("local", what)
        assert i.over == "latents of one pair"
        assert np.isnan(i.low) or i.low < i.mean < i.high
    over_runs = of_three.interval("x")
    assert (over_runs.over, over_runs.n) == ("runs", 3)
    with pytest.raises(ValueError, match="at least two"):
        four.interval("downstream")
    with pytest.raises(ValueError, match="one of mmcs, shared, paired, significant"):
        four.interval("local", "cosine")
    shares = [four.interval(kind, "shared") for kind in ("local", "e2e")]
    assert all(0 <= i.low <= i.mean < i.high <= 1 for i in shares)
    assert four.difference("local", "e2e").refusal is not None
    assert four.rarefaction.refusal is not None
    assert "no extrapolation: the runs belong to 2 groups (local, e2e)" in text
    assert "nan" not in text


def test_runs_of_one_latent_have_no_intervals():
    runs = [sg.Dictionary.from_decoder(np.eye(4)[at : at + 1] + 0.1, latent_axis=0, name=f"r{at}") for at in (0, 1)]
    s = sg.seeds(runs)
    assert s.summary()["recurrence"] == [[1, 0], [1, 0]]
    assert np.isnan(s.interval(s.groups[0], "paired").low)
    assert "2 distinct latents in 2 runs" in s.details()


def test_files_of_our_own_layout_say_their_kind_and_seed(tmp_path):
    loaded = []
    for name in ("local-seed0", "e2e-seed1"):
        shutil.copy(DEMO_FOLDER / f"{name}.safetensors", tmp_path / f"{name[0]}.safetensors")
        loaded.append(sg.load(str(tmp_path / f"{name[0]}.safetensors")))
    assert groups_of(loaded) == ["local", "e2e"]
    assert [d.metadata["seed"] for d in loaded] == ["0", "1"]


def test_a_kind_of_one_run_has_a_dash_and_no_nan(three):
    kinds = ["x", "x", "y"]
    runs = [replace(d, metadata={"kind": kind}) for d, kind in zip(three, kinds, strict=True)]
    text = repr(sg.seeds(runs, matching="mutual"))
    assert "within x − within y: –; no test: y has only one run" in text
    assert "nan" not in text


def test_the_null_expectation_is_shown_next_to_the_shares(four):
    between = sg.compare(four.runs[0], four.runs[1]).a_to_b
    assert four.shared_chance[0, 1] == (between.controls.turned > 0.7).mean()
    assert (four.shared_chance[~np.eye(4, dtype=bool)] < 0.04).all()
    assert four.summary()["shared_by_chance_at_most"][0][1] == four.shared_chance[0, 1]
    assert "expected by chance, at most" in four.details()


def test_runs_of_several_layers_are_groups_of_their_own(rng):
    def at(layer, seed):
        return sg.Dictionary.from_decoder(
            rng.standard_normal((20, 24)).astype(np.float32), latent_axis=0, name=f"x{layer}{seed}", model="m",
            hook_point=f"blocks.{layer}.hook_resid_pre", metadata={"kind": "local", "seed": seed},
        )  # fmt: skip

    s = sg.seeds([at(layer, seed) for layer in (2, 6) for seed in (0, 1)], allow_mismatch=True)
    assert s.groups == ["local, layer 2", "local, layer 2", "local, layer 6", "local, layer 6"]
    assert s.labels == ["x20 (seed 0)", "x21 (seed 1)", "x60 (seed 0)", "x61 (seed 1)"]
    assert s.interval("local, layer 6").mean == pytest.approx((s.mmcs[2, 3] + s.mmcs[3, 2]) / 2)
    table = s.to_pandas()
    assert table[["source_layer", "source_seed", "source_group"]].iloc[0].tolist() == [2, "0", "local, layer 2"]
    assert s.summary()["layers"] == [2, 2, 6, 6]
    assert "hook point" in repr(s)


def test_the_details_have_a_table_of_runs_before_the_matrices(four):
    lines = four.details().splitlines()
    assert any(line.strip().startswith("of every run: model smollm2") for line in lines)
    head = next(at for at, line in enumerate(lines) if "dead latents dropped by" in line)
    assert head < next(at for at, line in enumerate(lines) if "MMCS, row" in line)
    assert "[3] e2e-seed1" in lines[head + 5]


def test_the_details_name_the_pair_that_shares_its_start(demo):
    runs = [demo["local-seed0"], demo["e2e-seed0"], sg.load("demo:local-init-e2e-seed0")]
    lines = sg.seeds([d.select(range(300)) for d in runs]).details().splitlines()
    assert any(line.strip().startswith("! start of training, [1] and [2]") for line in lines)


def test_the_first_screen_shows_where_latents_recur(four):
    lines = repr(four).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("4 runs of 2 kinds: local-seed0, local-seed1")
    incidence = four.consensus.incidence
    assert f"{incidence[0]:,}" in next(line for line in lines if "in one only" in line)
    shared = next(line for line in lines if "shared one to one > 0.7" in line)
    off = four.shared[~np.eye(4, dtype=bool)]
    assert f"{100 * off.min():.1f}%" in shared
    assert f"{100 * off.max():.1f}%" in shared


def test_encoders_are_matched_too(four):
    assert 0.02 < four.shared_by_both[0, 1] <= four.shared[0, 1]
    a = sg.compare(four.runs[0], four.runs[1], "optimal")
    b = sg.compare(four.runs[0], four.runs[1], "optimal", on="encoder")
    same = np.mean((a.a_to_b.partner_row >= 0) & (a.a_to_b.partner_row == b.a_to_b.partner_row))
    assert four.same_partner[0, 1] == pytest.approx(same)
    both = np.mean((a.a_to_b.similarity > 0.7) & (b.a_to_b.similarity > 0.7))
    assert four.shared_by_both[0, 1] == pytest.approx(both)


def test_missing_encoders_are_reported(of_three):
    s = of_three
    assert np.isnan(s.shared_by_both).all()
    assert s.summary()["same_partner_by_decoder_and_encoder"][0][1] is None


def test_the_order_of_the_runs_changes_nothing_but_the_order(three, of_three):
    s, turned = of_three, sg.seeds(three[::-1])
    np.testing.assert_array_equal(s.mmcs, turned.mmcs[::-1, ::-1])
    np.testing.assert_array_equal(s.recurrence, turned.recurrence[::-1])
    np.testing.assert_array_equal(s.consensus.incidence, turned.consensus.incidence)


def test_saved_and_read(four, tmp_path):
    folder = sg.save(four, tmp_path / "out", formats=["png"])
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == [
        "consensus.parquet", "consensus.safetensors", "figures/matrices.png", "figures/recurrence.png",
        "figures/ridgeline.png", "orphans.parquet", "pairs.parquet", "report.html", "summary.json",
    ]  # fmt: skip
    tables, summary = sg.read(folder)
    table = tables["pairs"]
    assert len(table) == 12
    assert summary["mmcs"][0][1] == four.mmcs[0, 1]
    assert summary["mmcs"][0][0] is None
    assert summary["within_groups"]["local"]["mmcs"]["over"] == "latents of one pair"
    assert "the test needs" in summary["between_groups"][0]["refusal"]
    assert sg.load(str(folder / "consensus.safetensors")).n_latents == len(four.consensus.members)


def test_figures_for_many_runs(rng):
    many = [run(rng.standard_normal((8, 6)), f"n{k}", metadata={"kind": "ab"[k % 2]}) for k in range(14)]
    s = sg.seeds(many, matching="mutual")
    draw = sg.plots
    axes = draw.seeds_heatmap(s), draw.seeds_heatmap(s, "shared"), draw.recurrence_bars(s)
    for ax in (*axes, draw.rarefaction_curve(s.rarefaction)):
        plt.close(ax.figure)
    assert "and 2 runs more" in s.details()
    assert set(s.figures()) == {"matrices", "ridgeline", "recurrence"}
    assert s.difference("a", "b").refusal is None
    with pytest.raises(ValueError, match="the matrix must be one of"):
        draw.seeds_heatmap(s, "cosine")


@pytest.mark.parametrize(
    ("runs", "more", "said"),
    [
        (["demo:local-seed0"], {}, "at least two runs are needed to compare; got 1"),
        (FOUR[:2], {"threshold": 1.5}, "in −1…1; got 1.5"),
        (["demo:local-seed0", np.ones((3, 5))], {}, "dimensions"),
    ],
)
def test_wrong_use_is_refused(runs, more, said):
    with pytest.raises(ValueError, match=said):
        sg.seeds(runs, **more)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_matching_is_refused(three):
    with pytest.raises(ValueError, match="matching must be one of mutual, greedy, optimal"):
        sg.seeds(three, matching="nearest")


def test_one_run_on_the_command_line():
    result = CliRunner().invoke(app, ["seeds", "demo:local-seed0"])
    assert result.exit_code == 2
    assert "two or more runs; got 1" in result.stderr


def test_of_many_runs_the_summary_has_no_matrices_and_the_table_has_all(three, monkeypatch):
    few = sg.seeds(three, matching="mutual")
    listed = few.summary()
    monkeypatch.setattr("sae_geometry.comparisons.seeds_result._LISTED", 2)
    summary = few.summary()
    assert listed["mmcs"][0][1] == few.mmcs[0, 1]
    assert "matrices" not in listed
    assert summary["mmcs"] is summary["paired_chance"] is None
    assert "pairs.parquet" in summary["matrices"]
    assert summary["confounds"]["dead latents unknown"]["pairs"] == 3
    assert summary["confounds"]["dead latents unknown"]["first"] == "r20, r15"
    table = few.to_pandas()
    assert table.confounds.str.contains("dead latents").all()
    row = table.set_index(["source", "target"]).loc[("r10", "r20")]
    assert (row.mmcs, row.n_source, row.source_seed) == (few.mmcs[2, 0], 30, "10")
