"""Tests of exact neighbors, their graph, the evidence for an embedding, and reproducibility."""

from __future__ import annotations

import json
import warnings

import numpy as np
import oracles
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.neighbors import NearestNeighbors

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.backends import choose_backend
from sae_geometry.embedding.neighbors import exact_neighbors
from sae_geometry.embedding.optimizer import fuzzy_weights
from sae_geometry.embedding.quality import _neighborhoods, mixing_score, picture_neighbors
from sae_geometry.results.store import to_json


def make(w, name="x", **space):
    return Dictionary.from_decoder(
        np.asarray(w), latent_axis=0, name=name, **({"hook_point": "h", "model": "m"} | space)
    )


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(1)
    centers = rng.standard_normal((8, 16)) * 3
    return oracles.unit(centers[rng.integers(8, size=300)] + rng.standard_normal((300, 16)))


# ---- neighbors ----------------------------------------------------------------------------------------------------


def test_neighbors_equal_sklearns_brute_force(clustered):
    found = exact_neighbors(torch.from_numpy(clustered), 15)
    truth = NearestNeighbors(n_neighbors=15, metric="cosine", algorithm="brute").fit(clustered.astype(np.float64))
    distances, indices = truth.kneighbors(clustered.astype(np.float64))
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances[:, 1:], distances[:, 1:], atol=1e-7)


def test_demo_neighbors_equal_sklearns_brute_force(demo):
    points = torch.cat([demo["local-seed0"].directions, demo["local-seed1"].directions])
    found = exact_neighbors(points, 15)
    x = points.numpy().astype(np.float64)
    indices = NearestNeighbors(n_neighbors=15, metric="cosine", algorithm="brute").fit(x).kneighbors(x)[1]
    np.testing.assert_array_equal(found.indices, indices)


def test_the_contract_with_umap(clustered):
    with_duplicates = np.concatenate([clustered, clustered[:40], clustered[:40]])
    found = exact_neighbors(torch.from_numpy(with_duplicates), 12)
    assert found.indices.dtype == np.int64
    assert found.distances.dtype == np.float32
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(len(with_duplicates)))
    np.testing.assert_array_equal(found.distances[:, 0], 0)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.distances >= 0).all()
    assert all(len(set(row)) == 12 for row in found.indices.tolist())
    assert set(found.indices[0, 1:3]) == {300, 340}


@pytest.mark.parametrize("k", [0, 61])
def test_neighbors_refuse_a_size_that_cannot_be(k):
    with pytest.raises(ValueError, match="1…60"):
        exact_neighbors(torch.eye(60), k)


@pytest.mark.parametrize("duplicates", [0, 50])
def test_fuzzy_graph_equals_umap_learns_exact_cosine_path(clustered, duplicates):
    from umap.umap_ import fuzzy_simplicial_set

    x = np.concatenate([clustered, clustered[:duplicates]])
    found = exact_neighbors(torch.from_numpy(x), 15)
    ours = fuzzy_simplicial_set(
        x, 15, np.random.RandomState(0), "cosine", knn_indices=found.indices.copy(), knn_dists=found.distances.copy()
    )[0]
    # umap-learn's exact path takes a dense matrix of cosine distances with a diagonal of exactly zero.
    distances = np.maximum(1 - oracles.dense_cosines(x, x), 0).round(12)  # Equal rows get equal distances.
    np.fill_diagonal(distances, 0)
    order = np.lexsort((np.broadcast_to(np.arange(len(x)), distances.shape), distances))
    if duplicates:
        # Among coincident points umap-learn may put a twin first; here the point itself must come first.
        order = np.array([np.r_[i, row[row != i]] for i, row in enumerate(order)])
        near = np.take_along_axis(distances, order[:, :15], axis=1).astype(np.float32)
        theirs = fuzzy_simplicial_set(
            x, 15, np.random.RandomState(0), "cosine", knn_indices=order[:, :15].copy(), knn_dists=near
        )[0]
    else:
        theirs = fuzzy_simplicial_set(distances, 15, np.random.RandomState(0), "precomputed")[0]
    assert abs(ours - theirs).max() < 1e-5
    assert ours.nnz == theirs.nnz


def test_the_weights_are_those_of_umap_learns_own_small_exact_run(clustered):
    """Compare with the `graph_` of UMAP fitted as usual below 4,096 points, with all distances and no index."""
    import umap

    reducer = umap.UMAP(n_neighbors=15, metric="cosine", random_state=0, n_jobs=1, n_epochs=2, init="random")
    theirs = reducer.fit(clustered).graph_
    ours = fuzzy_weights(exact_neighbors(torch.from_numpy(clustered), 15))
    mine, fitted = ours.toarray(), theirs.toarray()
    kept = fitted > 0
    assert kept.sum() > 0.8 * ours.nnz
    np.testing.assert_allclose(mine[kept], fitted[kept], atol=1e-5)
    # After fitting, umap-learn drops edges too weak to be sampled in 500 epochs.
    assert mine[~kept].max() < 1 / 500


# ---- the embedding -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedding(clustered):
    return sg.umap([make(clustered[:200], "a"), make(clustered[200:], "b")], n_epochs=60)


def test_owners_and_ids(embedding):
    assert embedding.coords.shape == (300, 2)
    assert embedding.coords.dtype == np.float32
    assert np.isfinite(embedding.coords).all()
    np.testing.assert_array_equal(embedding.owner, np.repeat([0, 1], [200, 100]))
    np.testing.assert_array_equal(embedding.latent_id, np.r_[0:200, 0:100])
    frame = embedding.to_pandas()
    partners = ["max_cosine", "partner_id", "mutual", "one_to_one_partner_id", "one_to_one_cosine", "q_value"]
    assert list(frame.columns) == [
        "run", "latent_id", "x", "y", "partner_run", *partners, *(f"{p}:a" for p in partners),
        *(f"{p}:b" for p in partners), "frequency", "alive", "region",
    ]  # fmt: skip
    assert frame["run"].value_counts().to_dict() == {"a": 200, "b": 100}
    alone = embedding.dictionaries[0]
    assert list(sg.umap(alone, n_epochs=5).to_pandas().columns) == [
        "run", "latent_id", "x", "y", "frequency", "alive", "region",
    ]  # fmt: skip


def test_the_table_holds_the_partners_of_compare(embedding):
    frame = embedding.to_pandas()
    c = sg.compare(*embedding.dictionaries)
    np.testing.assert_array_equal(frame["max_cosine"], np.r_[c.a_to_b.cosine, c.b_to_a.cosine])
    np.testing.assert_array_equal(frame["partner_id"], np.r_[c.a_to_b.partner, c.b_to_a.partner])
    np.testing.assert_array_equal(frame["one_to_one_partner_id"].fillna(-1), np.r_[
        c.one_to_one().a_to_b.partner, c.one_to_one().b_to_a.partner])  # fmt: skip
    assert list(frame["region"].fillna("")) == [letter or "" for letter in embedding.regions.letters]


def test_latents_of_one_direction_share_their_point(clustered):
    a, b = make(np.concatenate([clustered[:80], clustered[:20]]), "a"), make(clustered[70:160] * 3, "b")
    e = sg.umap([a, b], n_epochs=20)
    unique, point = np.unique(np.concatenate([a.directions, b.directions]), axis=0, return_inverse=True)
    point = point.ravel()  # Only numpy 2.0 returns a column here.
    assert e.summary()["different_directions"] == len(unique) < 190
    assert len(np.unique(e.coords, axis=0)) == len(unique)
    for group in range(len(unique)):
        assert len(np.unique(e.coords[point == group], axis=0)) == 1


def test_a_dictionary_against_itself(clustered):
    """Every latent has a twin, so the layout is that of one copy with every point twice."""
    e = sg.umap([make(clustered, "a"), make(clustered, "b")], n_epochs=20)
    np.testing.assert_array_equal(e.coords[:300], e.coords[300:])
    np.testing.assert_array_equal(e.coords[:300], sg.umap(make(clustered), n_epochs=20).coords)
    assert (e.to_pandas()["max_cosine"] > 1 - 1e-6).all()
    with pytest.raises(ValueError, match="distinct directions, 20 among 40 latents; got 20"):
        sg.umap([make(clustered[:20]), make(clustered[:20])], 20)


@pytest.mark.parametrize("backend", ["numba", "umap-learn"])
def test_same_seed_same_coordinates_even_with_duplicates(clustered, backend):
    x = np.concatenate([clustered, clustered[:60]])
    one, two, other = (sg.umap(make(x), seed=s, n_epochs=15, n_seeds=1, backend=backend).coords for s in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[:60], one[300:])
    assert not np.array_equal(one, other)


def test_the_layout_depends_on_its_seed_alone(clustered):
    """Layouts with other seeds, made to judge stability, must not change it."""
    one, three = (sg.umap(make(clustered), n_epochs=15, n_seeds=n) for n in (1, 3))
    np.testing.assert_array_equal(one.coords, three.coords)
    assert (one.evidence.n_seeds, three.evidence.n_seeds) == (1, 3)
    assert np.isnan(one.evidence.stability_shift)
    assert "seeds" not in "; ".join(one.evidence.lines())
    assert 0 < three.evidence.stability_shift < 1.3
    assert 0.2 < three.evidence.stability_overlap < 1


def test_planted_clusters_stay_together(embedding, clustered):
    assert embedding.evidence.trustworthiness > 0.9
    assert embedding.evidence.neighbor_preservation > 0.3


def test_trustworthiness_and_preservation_equal_sklearns_at_both_sizes(clustered, embedding):
    from scipy.spatial import cKDTree

    far = cdist(clustered.astype(np.float64), clustered.astype(np.float64), "cosine")
    np.fill_diagonal(far, -1)
    e = embedding.evidence
    assert (e.k, e.k_wide) == (15, 50)
    seen = cKDTree(embedding.coords).query(embedding.coords, k=51)[1][:, 1:]
    meant = np.argsort(far, axis=1)[:, 1:]
    np.fill_diagonal(far, 0)
    for k, trust, kept in (
        (15, e.trustworthiness, e.neighbor_preservation),
        (50, e.trustworthiness_wide, e.neighbor_preservation_wide),
    ):
        theirs = sklearn_trustworthiness(far, embedding.coords, n_neighbors=k, metric="precomputed")
        assert trust == pytest.approx(theirs, abs=1e-4)
        shares = [len(np.intersect1d(a[:k], b[:k])) / k for a, b in zip(meant, seen, strict=True)]
        assert kept == pytest.approx(np.mean(shares), abs=2e-3)  # Rounding to float32 may swap ranks k and k + 1.


def test_a_sample_estimates_the_whole(clustered, embedding):
    picture = picture_neighbors(embedding.coords, 50)
    points = torch.from_numpy(clustered)
    whole = _neighborhoods(points, picture, np.arange(300), (15, 50))
    half = _neighborhoods(points, picture, np.arange(0, 300, 2), (15, 50))
    np.testing.assert_allclose(half, whole, atol=0.05)


@pytest.mark.parametrize("mixed", [0.0, 0.5, 1.0])
def test_mixing_score_on_planted_mixtures(mixed):
    """Test two separate clouds, each half and half or of one run, and runs whose latents lie next to their partners."""
    rng = np.random.default_rng(2)
    shift = np.r_[8.0, np.zeros(11)] * (mixed == 0)
    a, b = rng.standard_normal((150, 12)) - shift, rng.standard_normal((150, 12)) + shift
    if mixed == 1.0:  # The partner lies closest, so with k = 1 no neighbor belongs to the point's own run.
        b = a + 0.01 * rng.standard_normal(a.shape)
        near = exact_neighbors(torch.from_numpy(oracles.unit(np.concatenate([a, b]))), 2)
        score = mixing_score(near.indices[:, 1:], np.repeat([0, 1], 150))
        assert score.share == 1.0
        assert score.z > 10
        return
    evidence = sg.umap([make(a, "a"), make(b, "b")], n_epochs=30, n_seeds=1).evidence
    assert evidence.mixing_null == pytest.approx(150 / 299)
    assert evidence.mixing_original == pytest.approx(mixed, abs=0.05)
    assert evidence.mixing_picture == pytest.approx(mixed, abs=0.06)
    assert (evidence.mixing_z_original < -10) == (evidence.mixing_z_picture < -10) == (mixed == 0)


def test_one_dictionary_has_no_mixing(clustered):
    e = sg.umap(make(clustered), n_epochs=20)
    assert np.isnan(e.evidence.mixing_null)
    assert "another run" not in "; ".join(e.evidence.lines())
    assert np.isnan(e.evidence.mixing_z_picture)
    assert json.loads(to_json(e.summary()))["evidence"]["mixing_null"] is None


def test_it_says_how_it_was_made(embedding):
    text = embedding.details()
    for part in ("exact cosine neighbors", "seed 0", "numba", "trustworthiness", "labels were shuffled", "3 seeds"):
        assert part in text
    assert embedding.summary()["evidence_lines"] == list(embedding.evidence.lines())
    assert embedding.params["metric"] == "cosine"
    assert embedding.params["backend_version"]
    assert embedding.summary()["points"] == {"a": 200, "b": 100}


def test_equal_names_are_made_distinct(clustered):
    parts = [make(clustered[:50]), make(clustered[50:100]), make(clustered[100:150], "x (2)")]
    e = sg.umap(parts, n_epochs=10)
    assert len(set(e.names)) == 3
    assert e.names[0] == "x"
    assert e.names[2] == "x (2)"
    assert sum(e.summary()["points"].values()) == 150


def test_every_pair_of_spaces_is_checked(clustered):
    spaces = [{"hook_point": None}, {"hook_point": "h1"}, {"hook_point": "h2"}]
    dicts = [make(clustered[:20], n, **s) for n, s in zip("abc", spaces, strict=True)]
    with pytest.raises(ValueError, match="'b' has h1, 'c' has h2"):
        sg.umap(dicts, 5)


@pytest.mark.parametrize("n", [5, 12, 24, 31])
def test_trustworthiness_of_few_points_is_within_its_range(n):
    rng = np.random.default_rng(n)
    evidence = sg.umap(make(rng.standard_normal((n, 8))), 4, n_epochs=5).evidence
    assert evidence.k == min(15, (n - 1) // 2)
    assert 0 <= evidence.trustworthiness <= 1


def test_the_number_of_seeds_is_checked(clustered):
    with pytest.raises(ValueError, match="n_seeds is the number of layouts"):
        sg.umap(make(clustered), n_seeds=0)


def test_an_unknown_backend_is_refused(clustered, unchecked):
    with pytest.raises(ValueError, match="backend must be auto, numba, umap-learn or cuml; got 'rapids'"):
        choose_backend("rapids")


@pytest.mark.parametrize("wrong", [{"min_dist": 5.0}, {"seed": -1}, {"n_epochs": 0}])
def test_parameters_out_of_range_are_refused(clustered, wrong):
    with pytest.raises(ValueError, match="min_dist must be in 0…1"):
        sg.umap(make(clustered), **wrong)


@pytest.mark.parametrize("k", [1, 65, 300])
def test_n_neighbors_is_checked(clustered, k):
    with pytest.raises(ValueError, match="n_neighbors must be in 2…64"):
        sg.umap(make(clustered), k)


def test_nothing_to_embed_and_mismatched_spaces(clustered):
    with pytest.raises(ValueError, match="at least one dictionary"):
        sg.umap([])
    pair = [make(clustered, "a"), make(clustered, "b", hook_point="elsewhere")]
    with pytest.raises(ValueError, match="different hook point"):
        sg.umap(pair)
    e = sg.umap(pair, n_epochs=10, allow_mismatch=True)
    assert any("different hook point" in c for c in e.caveats)


def test_backend_choice_says_why():
    engine, version, why = choose_backend("auto")
    if not torch.cuda.is_available():
        assert (engine, why) == ("numba", "there is no CUDA GPU")
        with pytest.raises(ValueError, match="no CUDA GPU; use backend='numba'"):
            choose_backend("cuml")
    assert version[0].isdigit()
    assert choose_backend("umap-learn")[::2] == ("umap-learn", "requested")


def test_no_warning_reaches_the_user(clustered):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sg.umap(make(clustered), n_epochs=10)


def test_coordinates_cannot_be_written_through(embedding):
    with pytest.raises(ValueError, match="read-only"):
        embedding.coords[0] = 0


def test_many_runs_are_embedded_without_comparing_every_pair(rng, tmp_path):
    runs = [Dictionary.from_decoder(rng.standard_normal((4, 8)), latent_axis=0, name=f"r{k}") for k in range(25)]
    few, many = (sg.umap(runs[:n], n_neighbors=5, n_epochs=5) for n in (24, 25))
    assert few.across() is not None
    assert many.across() is None
    joined = sg.umap(Dictionary.from_decoder(torch.cat([d.directions for d in runs]), latent_axis=0), 5, n_epochs=5)
    np.testing.assert_array_equal(many.neighbors.indices, joined.neighbors.indices)
    np.testing.assert_array_equal(many.coords, joined.coords)
    assert many.caveats[0].startswith("25 runs: partners are listed only for up to 24")
    assert len(many.caveats) <= 31
    assert "r2 (4), …, r22 (4)" in repr(many)
    folder = sg.save(many, tmp_path / "out", formats=["png"])
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    assert not [c for c in table.columns if "partner" in c]
    assert summary["pairs"] == []
    assert sorted(p.stem for p in (folder / "figures").iterdir()) == ["regions", "runs", "umap"]
    with pytest.raises(ValueError, match="up to 24 runs; this layout has 25"):
        sg.explore(folder)
    with pytest.raises(ValueError, match="at most 24 runs"):
        sg.plots.check_colors(["matched"], runs)
