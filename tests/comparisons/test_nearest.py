"""Tests of the nearest latents of a vector, against a dense top k, and of their p-values under the null."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.kernels.reference import best, exact_cosines
from sae_geometry.sources.listing import expanded
from sae_geometry.sources.vectors import as_vectors


def make(rows, name="d", **space):
    return sg.Dictionary.from_decoder(np.asarray(rows, dtype=np.float32), latent_axis=0, name=name, **space)


@pytest.fixture
def three(rng):
    """Return three dictionaries in 6 dimensions with copies of one direction in each, so that ties are everywhere."""
    rows = [rng.standard_normal((n, 6)).astype(np.float32) for n in (17, 1, 9)]
    for r in rows:
        r[0] = r[-1] = rows[0][3]
    return [make(r, name) for r, name in zip(rows, "abc", strict=True)]


@pytest.mark.parametrize(("signed", "k"), [(True, 1), (True, 12), (False, 5), (True, 64)])
def test_it_is_the_dense_top_k_with_order_and_ties(three, rng, signed, k):
    vectors = np.vstack([three[0].directions[3].numpy(), -three[0].directions[3].numpy(), rng.standard_normal((4, 6))])
    found = sg.nearest(vectors, three, k, signed=signed, turns=0)
    every = torch.cat([d.directions for d in three])
    cosines = exact_cosines(as_vectors(vectors).directions, every)
    _, index = best(cosines if signed else np.abs(cosines), k)
    run = np.where(index < 0, -1, np.searchsorted([17, 18, 27], index, side="right"))
    np.testing.assert_array_equal(found.run, run)
    np.testing.assert_array_equal(found.latent_id, np.where(index < 0, -1, index - np.array([0, 17, 18])[run]))
    expected = np.where(index < 0, np.nan, np.take_along_axis(cosines, np.maximum(index, 0), axis=1)).clip(-1, 1)
    np.testing.assert_array_equal(found.cosine, expected)
    assert len(found.to_pandas()) == 6 * min(k, 27)


def test_ids_are_those_of_the_file(rng):
    d = make(rng.standard_normal((20, 5))).select([4, 11, 19])
    assert sg.nearest(d.directions[1].numpy(), d, 2, turns=0).latent_id[0, 0] == 11


@pytest.mark.parametrize("spectrum", ["flat", "steep"])
def test_p_values_of_unrelated_vectors_are_uniform(rng, spectrum):
    """Test 150 unrelated vectors with the dictionary's own spectrum against two dictionaries, ties included."""
    scale = np.ones(24) if spectrum == "flat" else 1 / np.arange(1, 25)
    targets = [make(rng.standard_normal((150, 24)) * scale, name) for name in "ab"]
    found = sg.nearest(rng.standard_normal((150, 24)) * scale, targets, 1, turns=49)
    p = found.p_value[:, 0]
    assert abs(p.mean() - 0.51) < 3 * 0.289 / np.sqrt(150)
    for level in (0.06, 0.2, 0.5, 0.8):
        assert abs((p <= level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / 150)


def test_a_planted_vector_has_the_smallest_p_and_the_next_has_not(rng):
    d = make(rng.standard_normal((300, 64)))
    found = sg.nearest(d.directions[5].numpy() + 0.05 * rng.standard_normal(64), d, 2, turns=199)
    assert found.latent_id[0, 0] == 5
    assert found.p_value[0, 0] == 1 / 200
    assert found.p_value[0, 1] > 0.05
    assert 0.2 < found.expected[0] < 0.5
    assert "the minimum is 0.005" in found.details()
    assert found.headline == "  vectors with a latent at p ≤ 0.05: 1 of 1"


def test_a_turn_that_changes_nothing_counts_as_close():
    found = sg.nearest([1.0, 0.0], make([[1, 0]] * 9), 1, turns=19)  # Equal rows are rotated about themselves.
    assert found.p_value[0, 0] == 1.0


def test_vectors_come_from_files(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    v = rng.standard_normal((3, 6)).astype(np.float32)
    np.save("v.npy", v)
    torch.save(torch.from_numpy(v[1]), "v.pt")
    torch.save({"weight": torch.from_numpy(v[2:]), "bias": torch.ones(1)}, "probe.pt")
    save_file({"a": torch.from_numpy(v), "b": torch.from_numpy(v[0])}, "two.safetensors")
    unit = as_vectors(v).directions
    for address, rows in {
        "v.npy": [0, 1, 2], "v.npy::row=2": [2], "./v.pt": [1], "probe.pt": [2], "two.safetensors::b": [0],
        "two.safetensors::a::row=0,2": [0, 2],
    }.items():  # fmt: skip
        assert torch.equal(as_vectors(address).directions, unit[rows]), address
    assert as_vectors("mine=v.npy").name == "mine"
    assert as_vectors(v[0][None, None]).n_latents == 1


def test_latents_of_a_dictionary_are_vectors(demo):
    v = as_vectors("demo:local-seed0::latent=12,7")
    assert v.latent_ids.tolist() == [12, 7]
    assert torch.equal(v.directions, demo["local-seed0"].select([12, 7]).directions)
    with pytest.raises(ValueError, match="has no latent 99999"):
        as_vectors("demo:local-seed0::latent=99999")


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ("demo:local-seed0", "holds 5 tensors; choose one by adding ::b_dec"),
        (np.zeros((2, 6)), r"zero or not finite \(0, 1\)"),
        (np.full(6, np.nan), "zero or not finite"),
        (np.ones((2, 3, 4)), r"got torch.float64 of shape \[2, 3, 4\]"),
        (np.ones((6, 2)), "pass the transpose"),
        (np.ones(5), "5 coordinates, but the directions of 'a' have 6"),
    ],
)
def test_what_is_not_a_vector_is_refused(three, vectors, said):
    with pytest.raises((ValueError, sg.SourceError), match=said):
        sg.nearest(vectors, three)


@pytest.mark.parametrize(("how", "said"), [({"k": 0}, "from 1 to 64; got 0"), ({"turns": -1}, "0 or more; got -1")])
def test_wrong_numbers_are_refused(three, how, said):
    with pytest.raises(ValueError, match=said):
        sg.nearest(np.ones(6), three, **how)


def test_another_space_is_refused_if_known(demo):
    other = make(np.eye(4, 576), "other", model="gpt2", hook_point="blocks.1.hook_resid_pre")
    with pytest.raises(ValueError, match="different model"):
        sg.nearest("demo:local-seed0::latent=7", other, turns=0)
    assert sg.nearest("demo:local-seed0::latent=7", other, turns=0, allow_mismatch=True).caveats


@pytest.fixture
def folder(tmp_path, rng):
    """Write a folder of published dictionaries: a file per layer, one of another width, and one that is not an SAE."""
    root = tmp_path / "repo"
    for layer, width in ((0, 6), (2, 6), (10, 6), (11, 4)):
        (root / f"layers.{layer}").mkdir(parents=True)
        w = torch.from_numpy(rng.standard_normal((8, width)).astype(np.float32))
        save_file(
            {"W_dec": w, "encoder.weight": w.clone(), "b_dec": w[0].clone()},
            root / f"layers.{layer}" / "sae.safetensors",
        )
    save_file({"x": torch.ones(3)}, root / "other.safetensors")
    return root


def test_a_folder_is_searched_whole_and_what_does_not_fit_is_named(folder, rng):
    found = sg.nearest(rng.standard_normal(6), str(folder), 24, turns=0)
    assert [d["address"].split("/")[-2] for d in found.searched] == ["layers.0", "layers.2", "layers.10"]
    assert found.n_candidates == 24
    assert len(found.skipped) == 2
    assert any("layers.11" in text and "6 coordinates" in text for text in found.skipped)
    assert "not searched: " in repr(found)
    dense = sg.nearest(found.vectors, [str(folder / f"layers.{i}") for i in (0, 2, 10)], 24, turns=0)
    np.testing.assert_array_equal(found.cosine, dense.cosine)
    with pytest.raises(ValueError, match=r"no dictionary could be searched.*9 coordinates"):
        sg.nearest(np.ones(9), str(folder))


def test_a_pattern_means_its_addresses(folder):
    assert expanded("a/layers.{9..11}#x") == ["a/layers.9#x", "a/layers.10#x", "a/layers.11#x"]
    assert expanded("{a,b}{1..0}") == ["a1", "a0", "b1", "b0"]
    assert expanded("plain") == ["plain"]
    with pytest.raises(sg.SourceError, match="more than 1,000"):
        expanded("{0..99999999}")
    found = sg.nearest(np.ones(6), f"{folder}/layers.{{0,2}}", turns=0)
    assert len(found.searched) == 2


def test_models_of_a_crosscoder_are_searched_apart():
    place = Path(__file__).parents[1] / "sources" / "checkpoints" / "crosscoder_dictionary_learning"
    one = sg.load(f"{place}::model=1")
    found = sg.nearest(one.directions[3].numpy(), str(place), 1, turns=0)
    assert found.latent_id.tolist() == [[3]]
    assert [d["address"].rpartition("::")[2] for d in found.searched] == ["layer=0", "layer=1"]
    assert found.run.tolist() == [[1]]
    assert [d["name"] for d in found.searched] == [f"{place.name} layer={i}" for i in (0, 1)]


def test_the_command(tmp_path, rng):
    np.save(tmp_path / "v.npy", rng.standard_normal((2, 576)))
    out = tmp_path / "out"
    arguments = ["nearest", str(tmp_path / "v.npy"), "demo:local-seed{0,1}", "-k", "3", "-o", str(out), "--turns", "19"]
    result = CliRunner().invoke(app, [*arguments, "--json", "-q", "--format", "png"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["n_candidates"] == 1536 + 1536
    assert [h["rank"] for h in summary["nearest"]] == [1, 2, 3] * 2
    tables, saved = sg.read(out)
    table = tables["nearest"]
    assert len(table) == saved["n_hits"] == 6
    assert (out / "figures" / "nearest.png").exists()
    assert "vector  by chance  run" in CliRunner().invoke(app, [*arguments, "--overwrite", "--format", "png"]).stdout
