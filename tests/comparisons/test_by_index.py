"""Tests of comparing latents by id: planted classes, ties, and crosscoder layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from oracles import unit
from safetensors.torch import load_file
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.comparisons.by_index import CLASSES
from sae_geometry.pairwise.label_columns import labeled_table

CROSSCODER = Path(__file__).parents[1] / "sources" / "checkpoints" / "crosscoder_dictionary_learning"


def make(rows, name, **how):
    return sg.Dictionary.from_decoder(np.asarray(rows), latent_axis=0, name=name, model="m", hook_point="h", **how)


@pytest.fixture(scope="module")
def planted():
    """Plant 40 shared ids, 12 only in A, 7 only in B (two have a zero row in A), and two pairs of swapped ids."""
    rng = np.random.default_rng(0)
    a = unit(rng.standard_normal((64, 32)))
    b = unit(a + 0.02 * rng.standard_normal((64, 32)))
    b[[59, 60, 61, 62]] = b[[60, 59, 62, 61]]
    scale_a, scale_b = rng.uniform(0.6, 1.6, (2, 64, 1))
    scale_b[40:52] = 0.03 * scale_a[40:52]
    scale_a[52:57] = 0.03 * scale_b[52:57]
    scale_a[57:59] = 0
    return a * scale_a, b * scale_b, sg.compare_by_index(make(a * scale_a, "a", drop_bad=True), make(b * scale_b, "b"))


def test_planted_classes_are_counted(planted):
    a, b, c = planted
    assert c.ids.tolist() == list(range(64))
    assert c.counts == {"shared": 45, "only A": 12, "only B": 7}
    norms = [np.linalg.norm(x, axis=1) for x in (a, b)]
    np.testing.assert_allclose(c.relative_norm, norms[1] / (norms[0] + norms[1]), atol=1e-6)
    assert np.isnan(c.cosine[57:59]).all()
    assert (c.relative_norm[57:59] == 1).all()
    assert np.flatnonzero(c.other_in_b).tolist() == [59, 60, 61, 62]
    assert c.nearest_in_b[59:63].tolist() == [60, 59, 62, 61]
    expected = (unit(a[:57]) * unit(b[:57])).sum(axis=1)
    np.testing.assert_allclose(c.cosine[:57], expected, atol=1e-6)
    assert abs(c.by_chance) < 0.1


def test_it_shows_its_thresholds_and_the_artifact(planted):
    text = " ".join(repr(planted[2]).split())
    for part in (
        "at most 0.1",
        "at least 0.9",
        "45 70.3%",
        "L1 penalty produce spurious only-B",
        "BatchTopK crosscoders have fewer",
    ):
        assert part in text
    summary = planted[2].summary()
    assert summary["cuts"] == {"only_a_at_most": 0.1, "only_b_at_least": 0.9}
    assert sum(summary["relative_norm_histogram"]["counts"]) == 64


def test_other_cuts(planted):
    a, b, _ = planted
    c = sg.compare_by_index(make(a, "a", drop_bad=True), make(b, "b"), cuts=(0.01, 0.99))
    assert c.counts == {"shared": 62, "only A": 0, "only B": 2}


def test_labels_of_both_sides_stand_by_each_id(planted):
    a, b, _ = planted
    words = [sg.Labels.of(pd.DataFrame({"tokens": [[f"{side}{i}"] for i in range(64)]}), side) for side in "ab"]
    c = sg.compare_by_index(
        make(a, "a", drop_bad=True).labeled(words[0]), make(b, "b").labeled(words[1]), cuts=(0.05, 0.95)
    )
    table = labeled_table(c.to_pandas(), c.dictionaries).set_index("latent_id")
    assert (table.tokens[3], table.partner_tokens[3]) == ('["a3"]', '["b3"]')
    assert table.tokens.isna().sum() == 2
    groups = c.summary()["labels"]["groups"]
    assert {g["group"]: g["n"] for g in groups} == c.counts
    assert groups[0]["token_overlap"] == 0
    assert "only B" in "\n".join(c.meanings.lines())
    has = {name: c.meanings.own.tokens[c.meanings.table.group == name].str[0].str[0].tolist() for name in CLASSES}
    assert {name: set(sides) for name, sides in has.items()} == {"shared": {"a"}, "only A": {"a"}, "only B": {"b"}}


def test_an_equally_near_id_does_not_displace_its_own():
    c = sg.compare_by_index(make([[1, 0], [1, 0], [0, 1]], "a"), make([[1, 0], [1, 0], [0, 1]], "b"))
    assert not c.other_in_b.any()
    assert not c.other_in_a.any()


def test_ids_count_not_rows():
    rows = np.eye(6, 8)
    c = sg.compare_by_index(make(rows, "a").select([5, 0, 3]), make(rows, "b").select([3, 5, 1]))
    assert c.ids.tolist() == [3, 5]
    assert c.cosine.tolist() == [1, 1]
    assert any("left out 2 latents" in text for text in c.caveats)


@pytest.mark.parametrize(
    ("b", "how", "said"),
    [
        (np.eye(4, 8), {}, "ids do not correspond"),
        (np.eye(6, 8), {"cuts": (0.9, 0.1)}, "0 ≤ low < high ≤ 1; got 0.9 and 0.1"),
    ],
)
def test_what_cannot_be_paired_is_refused(b, how, said):
    with pytest.raises(ValueError, match=said):
        sg.compare_by_index(make(np.eye(6, 8), "a"), make(b, "b"), **how)
    with pytest.raises(ValueError, match="no latent ids in common"):
        sg.compare_by_index(make(np.eye(6, 8), "a").select([0]), make(np.eye(6, 8), "b").select([1]))


def test_the_figure_says_the_counts(planted):
    c = planted[2]
    heights = sum(patch.get_height() for patch in sg.plots.relative_norm_histogram(c).patches)
    assert heights == 64
    labels = [t.get_text() for t in sg.plots.relative_norm_histogram(c).get_legend().get_texts()]
    assert labels == ["only A: 12", "shared: 45", "only B: 7"]
    assert sum(patch.get_height() for patch in sg.plots.same_id_histogram(c).patches) == 62


@pytest.mark.parametrize("word", ["model", "layer"])
def test_the_command_on_a_crosscoder(tmp_path, word):
    out = tmp_path / "out"
    sides = [f"A={CROSSCODER}::{word}=0", f"B={CROSSCODER}::{word}=1"]
    how = ["--pairing", "index", "--cuts", "0.2", "0.8", "-o", str(out), "--json", "-q", "--format", "png"]
    result = CliRunner().invoke(app, ["compare", *sides, *how])
    assert result.exit_code == 0, result.output
    tables, summary = sg.read(out)
    table = tables["by_index"]
    assert json.loads(result.stdout) == summary
    assert summary["cuts"] == {"only_a_at_most": 0.2, "only_b_at_least": 0.8}
    assert summary["classes"]["only A"] == (table["relative_norm"] <= 0.2).sum()
    per_model = load_file(CROSSCODER / "model.safetensors")["decoder.weight"].double().numpy()
    norms = np.linalg.norm(per_model, axis=2)
    np.testing.assert_allclose(table["relative_norm"], norms[1] / norms.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(table["cosine"], (unit(per_model[0]) * unit(per_model[1])).sum(axis=1), atol=1e-6)
    assert (out / "figures" / "by_index.png").exists()


def test_compare_proposes_it_where_ids_correspond(rng):
    a = rng.standard_normal((40, 16))
    near, shuffled = a + 0.1 * rng.standard_normal(a.shape), a[rng.permutation(40)]
    sides = [sg.load(f"{CROSSCODER}::model={i}") for i in (0, 1)]
    assert [d.name for d in sg.compare(*sides, turns=0).dictionaries] == [
        f"{CROSSCODER.name} model={i}" for i in (0, 1)
    ]
    assert "(--pairing index): 100% of mutual pairs have the same id" in repr(sg.compare(make(a, "a"), make(near, "b")))
    assert "(--pairing index): two outputs of the same latents" in repr(sg.compare(*sides))
    assert "--pairing index" not in sg.compare(make(a, "a"), make(shuffled, "b")).details()


def test_the_command_refuses_what_pairs_by_cosine(tmp_path):
    arguments = [
        "compare",
        "demo:local-seed0",
        "demo:local-seed1",
        "--pairing",
        "index",
        "-q",
        "-o",
        str(tmp_path / "x"),
    ]
    for option in ("--matching optimal", "--min-margin 0.1", "--control demo:e2e-seed0"):
        result = CliRunner().invoke(app, [*arguments, *option.split()])
        assert result.exit_code == 2
        assert f"leave out {option.split()[0]}" in result.stderr
    result = CliRunner().invoke(app, [*arguments[:3], "--cuts", "0.2", "0.8", "-q"])
    assert result.exit_code == 2
    assert "add --pairing index" in result.stderr
    assert CliRunner().invoke(app, [*arguments, "--format", "png", "--fail-under", "0.9"]).exit_code == 3
