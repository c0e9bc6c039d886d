"""Tests of projection: the layout is unchanged, identical directions share points, and saved layouts are verified."""

from __future__ import annotations

import json

import numpy as np
import oracles
import pandas as pd
import pytest
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.dictionary import Dictionary

NARROW, WIDE = "demo:local-narrow-seed0", "demo:local-seed0"


def make(w, name, hook="h"):
    return Dictionary.from_decoder(np.asarray(w), latent_axis=0, name=name, hook_point=hook, model="m")


@pytest.fixture(scope="module")
def clusters():
    rng = np.random.default_rng(3)
    centers = rng.standard_normal((5, 16)) * 3
    group = rng.integers(5, size=400)
    return oracles.unit(centers[group] + rng.standard_normal((400, 16))), group


@pytest.fixture(scope="module")
def picture(clusters):
    w, _ = clusters
    return sg.umap([make(w[:150], "a"), make(np.concatenate([w[150:250], w[:20]]), "b")], n_epochs=80, n_seeds=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "umap"
    return sg.save(sg.umap(NARROW, n_epochs=20, n_seeds=1), folder, formats=["png"])


def test_identical_directions_share_a_point(picture, clusters):
    w, _ = clusters
    new = make(np.concatenate([w[140:150] * 7, w[300:310]]), "new")
    p = sg.project(new, picture)
    np.testing.assert_array_equal(p.coords[:10], picture.coords[140:150])
    assert p.n_same == 10
    assert p.cosine[:10] == pytest.approx(1)
    twice = sg.project(make(w[[300, 300, 301]], "twice"), picture)
    np.testing.assert_array_equal(twice.coords[0], twice.coords[1])


def test_a_run_projected_onto_its_own_layout_keeps_its_preservation():
    """A latent that is already in the layout must not be its own neighbor, or all scores would be too favorable."""
    e = sg.umap(NARROW, n_epochs=20, n_seeds=1)
    p = sg.project(NARROW, e)
    assert p.preservation == pytest.approx(e.evidence.neighbor_preservation, abs=0.005)
    with pytest.raises(ValueError, match="seed must be in"):
        sg.project(NARROW, e, seed=-1)


@pytest.mark.parametrize("refine", [True, False])
def test_new_latents_fall_into_their_own_cluster(picture, clusters, refine):
    """The nearest point of a new latent must belong to its own planted cluster."""
    w, group = clusters
    p = sg.project([make(w[250:330], "c"), make(w[330:], "d")], picture, refine=refine)
    old_group = np.concatenate([group[:150], group[150:250], group[:20]])
    near = np.linalg.norm(p.coords[:, None] - picture.coords[None], axis=2).argmin(axis=1)
    assert (old_group[near] == group[250:]).mean() > 0.95
    cosines = oracles.dense_cosines(w[250:], np.concatenate([w[:250], w[:20]]))
    np.testing.assert_allclose(p.cosine, cosines.max(axis=1), atol=1e-6)
    assert (cosines[np.arange(150), p.nearest] > cosines.max(axis=1) - 1e-6).all()
    assert 0.2 < p.preservation <= 1
    assert list(p.names) == ["c", "d"]
    np.testing.assert_array_equal(p.owner, np.repeat([0, 1], [80, 70]))


def test_same_seed_same_points(picture, clusters):
    new = make(clusters[0][250:], "new")
    one, two, other = (sg.project(new, picture, seed=s).coords for s in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_the_table_has_the_columns_of_the_layout_and_marks_new_latents(picture, clusters):
    old = picture.to_pandas()
    table = sg.project(make(clusters[0][300:], "new"), picture).to_pandas()
    assert list(table.columns) == [*old.columns, "projected"]
    assert table["projected"].sum() == 100
    before = table[~table["projected"]].drop(columns="projected")
    pd.testing.assert_frame_equal(before.astype(old.dtypes), old)
    rows = table[table["projected"]]
    assert rows["mutual"].isna().all()
    assert rows["region"].isna().all()
    assert rows["partner_run"].isin(["a", "b"]).all()
    assert rows["max_cosine"].notna().all()


def test_onto_one_run_the_columns_about_partners_are_new(clusters):
    alone = sg.umap(make(clusters[0][:200], "a"), n_epochs=5, n_seeds=1)
    table = sg.project(make(clusters[0][200:], "b"), alone).to_pandas()
    assert {"partner_run", "partner_id", "max_cosine"} <= set(table.columns)
    assert table.loc[~table["projected"], "max_cosine"].isna().all()


def test_a_saved_layout_is_loaded_again(saved):
    fresh = sg.project(WIDE, sg.umap(NARROW, n_epochs=20, n_seeds=1))
    for onto in (saved, saved / "umap.parquet", str(saved)):
        p = sg.project(WIDE, onto)
        np.testing.assert_array_equal(p.coords, fresh.coords)
    assert "local-narrow-seed0 (512 latents" in repr(p)


def test_a_dictionary_that_has_changed_is_refused(saved, tmp_path):
    record = json.loads((saved / "summary.json").read_text())
    (tmp_path / "umap.parquet").write_bytes((saved / "umap.parquet").read_bytes())

    def with_input(**changed):
        other = {**record, "inputs": [{**record["inputs"][0], **changed}]}
        (tmp_path / "summary.json").write_text(json.dumps(other))

    with_input(fingerprint="0" * 64)
    with pytest.raises(ValueError, match=r"has changed since .* was made: its fingerprint was"):
        sg.project(WIDE, tmp_path)
    with_input(address=None)
    with pytest.raises(ValueError, match="made in memory and has no address"):
        sg.project(WIDE, tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({**record, "kind": "Comparison"}))
    with pytest.raises(ValueError, match="kind Comparison, not Embedding"):
        sg.project(WIDE, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"needs umap\.parquet and summary.json"):
        sg.project(WIDE, tmp_path / "nothing")


# tables that another program has written, and whether they can be projected onto
TABLES = {
    "no runs": (lambda t: t.drop(columns="run"), False),
    "other runs": (lambda t: t.assign(run=np.where(t.index < 9, "x", t["run"])), False),
    "runs of categories": (lambda t: t.assign(run=pd.Categorical(t["run"])), True),
    "far away": (lambda t: t.assign(x=t["x"].astype(float) * 1e300), False),
    "nowhere": (lambda t: t.assign(y=np.nan), False),
    "truths for places": (lambda t: t.assign(x=t["x"] > 0), False),
    "text for a cosine": (lambda t: t.assign(max_cosine="1.0"), False),
    "times for a frequency": (lambda t: t.assign(frequency=pd.Timestamp("2026-01-01")), False),
    "ids of eight bits": (lambda t: t.assign(partner_id=np.int8(3), partner_run=pd.Categorical(["p"] * len(t))), True),
    "ids beyond 63 bits": (lambda t: t.assign(mine=np.uint64(2**63 + 1), partner_id=np.uint64(2**64 - 1)), True),
    "columns of their own": (lambda t: t.assign(when=pd.Timestamp("2026-01-01"), lists=[[1]] * len(t)), True),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_another_program_is_projected_onto_or_one_sentence(saved, tmp_path, kind):
    change, usable = TABLES[kind]
    (tmp_path / "summary.json").write_bytes((saved / "summary.json").read_bytes())
    change(pd.read_parquet(saved / "umap.parquet")).to_parquet(tmp_path / "umap.parquet")
    new = sg.load("demo:local-seed1")
    new = new.select(new.latent_ids[:40])
    if not usable:
        with pytest.raises(ValueError, match=r"lacks the columns run|must hold|beyond ±1,000,000|belong together"):
            sg.project(new, tmp_path)
        return
    folder = sg.save(sg.project(new, tmp_path), tmp_path / "out", formats=[])
    table = sg.read(folder).tables["umap"]
    assert set(table.loc[table["projected"], "run"]) == {"local-seed1"}
    assert set(table.loc[table["projected"], "partner_run"]) == {"local-narrow-seed0"}


@pytest.mark.parametrize(
    "params",
    [{"n_neighbors": 0}, {"n_neighbors": -(10**18)}, {"min_dist": 1e308}, {"min_dist": -1}, {"n_neighbors": None}],
    ids=range(5),
)
def test_impossible_parameters_of_a_saved_layout_are_one_sentence(saved, tmp_path, params):
    record = json.loads((saved / "summary.json").read_text())
    (tmp_path / "umap.parquet").write_bytes((saved / "umap.parquet").read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps({**record, "params": {**record["params"], **params}}))
    with pytest.raises(ValueError, match="incomplete or invalid embedding"):
        sg.project(WIDE, tmp_path)


def test_other_spaces_and_nothing_are_refused(picture, clusters):
    with pytest.raises(ValueError, match="different hook point"):
        sg.project(make(clusters[0], "x", hook="elsewhere"), picture)
    assert sg.project(make(clusters[0], "x", hook="elsewhere"), picture, allow_mismatch=True).caveats
    with pytest.raises(ValueError, match="nothing to project"):
        sg.project([], picture)


def test_the_command(saved, tmp_path):
    out = tmp_path / "out"
    made = CliRunner().invoke(app, ["project", str(saved), "demo:local-seed1", "-o", str(out), "--format", "png"])
    assert made.exit_code == 0, made.output
    assert "Projection of 1,536 latents: local-seed1 (1,536)" in made.output
    tables, summary = sg.read(out)
    table = next(iter(tables.values()))
    assert table["projected"].sum() == 1536
    assert summary["kind"] == "Projection"
    assert summary["onto"]["inputs"][0]["name"] == "local-narrow-seed0"
    assert (out / "figures" / "projection.png").stat().st_size > 10_000
    assert len((out / "neuronpedia.csv").read_text().splitlines()) == 1 + len(table)
    onto_itself = CliRunner().invoke(app, ["project", str(saved), "demo:local-seed1", "-o", str(saved), "--overwrite"])
    assert onto_itself.exit_code == 2
    assert "holds the embedding to project onto; give another folder with -o" in onto_itself.output
    assert sg.read(saved).summary["kind"] == "Embedding"
