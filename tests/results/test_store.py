"""Tests of saved results: files describe themselves, and a folder is complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from memo import remember

import sae_geometry as sg
from sae_geometry.results import store

undrawn = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(autouse=True)
def _remembered(monkeypatch):
    remember(monkeypatch)


@pytest.fixture
def comparison(toy_pair):
    return sg.compare(*toy_pair)


def test_comparison_round_trip(comparison, tmp_path):
    folder = sg.save(comparison, tmp_path / "new" / "out", command="x y", formats=["png"])
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == [
        "figures/certainty.png", "figures/double_counting.png", "figures/multiplicity.png", "figures/partners.png",
        "figures/similarity.png",
        "matches.parquet", "only-a.csv", "only-b.csv", "report.html", "shared.csv", "summary.json",
    ]  # fmt: skip
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    assert list(table.columns) == [
        "direction", "run", "latent_id", "partner_run", "partner_id", "cosine", "mutual", "q_value", "significant",
        "margin", "margin_of_partner", "one_to_one_partner_id", "one_to_one_cosine", "one_to_one_matching",
        "one_to_one_margin", "one_to_one_loss_if_forbidden", "alive", "frequency",
    ]  # fmt: skip
    forth = table[table["direction"] == "a_to_b"]
    np.testing.assert_array_equal(forth["cosine"], comparison.a_to_b.cosine)
    np.testing.assert_array_equal(forth["partner_id"], comparison.a_to_b.partner)
    np.testing.assert_array_equal(forth["one_to_one_partner_id"], comparison.one_to_one().a_to_b.partner)
    assert set(forth["one_to_one_matching"]) == {"optimal"}
    np.testing.assert_array_equal(forth["margin"], comparison.certainty[0].margin)
    loss = forth["one_to_one_loss_if_forbidden"]
    assert (loss.dropna() >= 0).all()
    np.testing.assert_array_equal(loss.isna(), forth["one_to_one_partner_id"] == -1)
    assert forth["alive"].isna().all()
    assert summary["schema_version"] == 2
    assert summary["command"] == "x y"
    assert summary["a_to_b"]["mean_similarity_of_matched"] == comparison.a_to_b.mmcs
    assert summary["one_to_one"]["matching"] == "optimal"
    assert summary["inputs"]["b"]["fingerprint"] == comparison.b.fingerprint
    assert {"torch", "numpy", "python"} <= set(summary["software"])


def test_alive_and_frequency_are_per_latent(demo, tmp_path):
    narrow = demo["local-narrow-seed0"]
    frequency = narrow.frequency.numpy().copy()
    frequency[5::22] = 0
    d = sg.Dictionary.from_decoder(narrow.directions, latent_axis=0, name="d", frequency=frequency, alive=frequency > 0)
    table = sg.compare(d, demo["local-seed0"], allow_mismatch=True).to_pandas()
    forth = table[table["direction"] == "a_to_b"]
    assert (~forth["alive"]).sum() == 24
    assert ((forth["frequency"] == 0) == ~forth["alive"]).all()


def test_embedding_and_within_files(toy_pair, tmp_path):
    e = sg.umap(list(toy_pair), n_epochs=10)
    folder = sg.save(e, tmp_path / "e", formats=["png"])
    csv = pd.read_csv(folder / "neuronpedia.csv")
    assert (folder / "neuronpedia.csv").read_text().splitlines()[0] == "RunType,EmbeddingIndex,X,Y"
    assert len(csv) == 107
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    np.testing.assert_array_equal(table["x"], e.coords[:, 0])
    assert list(table.columns) == list(e.to_pandas().columns)
    assert summary["params"]["seed"] == 0
    w = sg.save(sg.within(toy_pair[0]), tmp_path / "w", formats=["svg"])
    assert (w / "figures" / "within.svg").exists()
    assert sg.read(w).summary["kind"] == "WithinComparison"


@undrawn
def test_regions_are_written_with_ids_counts_and_links(tmp_path, rng):
    # One bundle of directions has latents of both runs, the other of b alone.
    near = np.eye(2, 12)[[0] * 90 + [1] * 60] * 4 + rng.standard_normal((150, 12)) * 0.5
    pages = {"metadata": {"neuronpedia_id": "gpt2-small/0-res-jb"}}
    a = sg.Dictionary.from_decoder(near[:45], latent_axis=0, name="a", **pages)
    b = sg.Dictionary.from_decoder(near[45:], latent_axis=0, name="b").select(np.arange(105)[::-1].copy())
    e = sg.umap([a, b]).with_regions(30)
    folder = sg.save(e, tmp_path / "e", formats=["png"])
    record = json.loads((folder / "regions.json").read_text())
    assert record["params"]["min_size"] == 30
    assert [r["run"] for r in record["runs"]] == ["a", "b"]
    assert len(record["regions"]) >= 2
    table = pd.read_parquet(folder / "umap.parquet")
    for region in record["regions"]:
        rows = table[table["region"] == region["letter"]]
        assert region["size"] == len(rows) == sum(r["count"] for r in region["runs"])
        for run in region["runs"]:
            assert run["latent_ids"] == rows.loc[rows["run"] == run["run"], "latent_id"].tolist()
        listed = sum(link.count("modelId") for link in region["neuronpedia_lists"])
        assert listed == region["runs"][0]["count"]
    # All 45 latents of a are in the first bundle, and 45 of 105 of b: at equal sizes it is 70% a.
    assert {r["verdict"] for r in record["regions"]} == {"mostly a", "mostly b"}


@undrawn
def test_no_silent_overwrite(comparison, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        sg.save(comparison, folder)
    assert (folder / "precious").read_text() == "mine"
    with pytest.raises(FileExistsError, match="no results of this package"):
        sg.save(comparison, folder, overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["precious"]
    ours = sg.save(comparison, tmp_path / "ours", formats=["png"])
    (ours / "note").write_text("mine")
    sg.save(comparison, ours, formats=["svg"], overwrite=True)
    assert (ours / "note").read_text() == "mine"
    assert {p.suffix for p in (ours / "figures").iterdir()} == {".svg"}
    assert not [p for p in ours.iterdir() if p.name.startswith(".")]
    for below in (ours / "summary.json", ours / "summary.json" / "sub"):
        with pytest.raises(FileExistsError, match="is a file"):
            sg.save(comparison, below)


@undrawn
def test_an_empty_folder_stays_the_folder_it_is(comparison, tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    sg.save(comparison, tmp_path / "link", formats=["png"])
    assert (tmp_path / "link").is_symlink()
    assert (real / "summary.json").exists()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    sg.save(comparison, ".", formats=["png"])
    assert sorted(p.name for p in here.iterdir()) == [
        "figures", "matches.parquet", "only-a.csv", "only-b.csv", "report.html", "shared.csv", "summary.json",
    ]  # fmt: skip


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_result_is_refused(comparison, tmp_path):
    with pytest.raises(ValueError, match="save takes a result"):
        sg.save({"a": 1}, tmp_path / "x")
    with pytest.raises(ValueError, match="formats must be a list"):
        sg.save(comparison, tmp_path / "x", formats="png")
    assert list(tmp_path.iterdir()) == []


def test_an_allowed_mismatch_is_written_on_the_figure(tmp_path, rng):
    from sae_geometry.dictionary import Dictionary

    pair = [
        Dictionary.from_decoder(rng.standard_normal((20, 6)), latent_axis=0, name=n, hook_point=n, model="m")
        for n in "ab"
    ]
    c = sg.save(sg.compare(*pair, allow_mismatch=True), tmp_path / "c", formats=["svg"])
    e = sg.save(sg.umap(pair, n_epochs=5, allow_mismatch=True), tmp_path / "e", formats=["svg"])
    for picture in [*(c / "figures").iterdir(), *(e / "figures").iterdir()]:
        assert "different hook point" in picture.read_text(encoding="utf-8").partition("</metadata>")[2], picture


@undrawn
def test_a_failure_in_the_middle_leaves_everything_as_it_was(comparison, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    sg.save(comparison, folder, formats=["png"])
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def explode(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "to_json", explode)
    with pytest.raises(KeyboardInterrupt):
        sg.save(comparison, folder, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        sg.save(comparison, tmp_path / "other")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_reading_a_folder_that_is_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a results folder"):
        sg.read(tmp_path)


def test_json_is_strict():
    text = store.to_json({"a": float("nan"), "b": [np.float64(1.5), float("inf")], "c": np.int64(3), 4: True})
    assert json.loads(text) == {"a": None, "b": [1.5, None], "c": 3, "4": True}


@undrawn
def test_results_in_a_folder_whose_name_is_not_utf8(toy_pair, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    sg.save(sg.compare(*toy_pair, matching="mutual"), folder, formats=["svg"])
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    assert len(table) == summary["a_to_b"]["n_source"] + summary["b_to_a"]["n_source"]
