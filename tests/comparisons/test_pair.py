"""Tests of `compare` against the dense float64 definition: invariances, encoders, double counting and memory."""

from __future__ import annotations

import json

import numpy as np
import oracles
import pytest
from pair_cases import make
from scipy.optimize import linear_sum_assignment

import sae_geometry as sg
from sae_geometry.comparisons.pair import MATCHINGS
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.reference import exact_cosines
from sae_geometry.results.store import to_json

ONE_TO_ONE = ("mutual", "greedy", "optimal")


def dense(c):
    return exact_cosines(c.a.directions, c.b.directions)


# ---- the definition ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("local-narrow-seed0", "e2e-seed0"),
        pytest.param("local-seed0", "local-seed1", marks=pytest.mark.slow),
    ],
)
def test_demo_pair_equals_dense_float64(demo, left, right):
    c = sg.compare(demo[left], demo[right])
    scores = oracles.dense_cosines(demo[left].directions.numpy(), demo[right].directions.numpy())
    for m, s, ids in ((c.a_to_b, scores, c.b.latent_ids), (c.b_to_a, scores.T, c.a.latent_ids)):
        np.testing.assert_allclose(m.similarity, s.max(axis=1), atol=1e-12)
        np.testing.assert_array_equal(m.partner, ids.numpy()[s.argmax(axis=1)])
        np.testing.assert_array_equal(m.multiplicity, np.bincount(s.argmax(axis=1), minlength=s.shape[1]))
        assert m.mmcs == pytest.approx(s.max(axis=1).mean(), abs=1e-12)
        assert m.coverage == pytest.approx(len(set(s.argmax(axis=1))) / s.shape[1])
        for t in (0.3, 0.7, 0.9):
            assert m.fraction_above(t) == pytest.approx((s.max(axis=1) > t).mean())


def test_scores_are_the_exact_inner_products_to_the_last_bit(toy_pair):
    c = sg.compare(*toy_pair)
    np.testing.assert_array_equal(c.a_to_b.similarity, dense(c).max(axis=1))


def test_greedy_is_sequential_greedy_and_optimal_is_scipys_on_the_demo(demo):
    a, b = demo["local-narrow-seed0"], demo["local-seed1"]
    scores = exact_cosines(a.directions, b.directions)
    greedy = sg.compare(a, b, "greedy", turns=0).a_to_b
    np.testing.assert_array_equal(greedy.partner_row, oracles.sequential_greedy(scores))
    optimal = sg.compare(a, b, "optimal", turns=0).a_to_b
    rows, cols = linear_sum_assignment(scores, maximize=True)
    assert optimal.n_matched == len(rows)
    assert optimal.mean_similarity == pytest.approx(scores[rows, cols].mean(), abs=1e-12)


def test_mutual_is_mutual(toy_pair):
    c = sg.compare(*toy_pair, matching="mutual")
    s = dense(c)
    forth, back = s.argmax(axis=1), s.argmax(axis=0)
    expected = np.where(back[forth] == np.arange(len(s)), forth, -1)
    np.testing.assert_array_equal(c.a_to_b.partner_row, expected)
    assert c.a_to_b.mutual.sum() == (expected >= 0).sum()
    nearest = sg.compare(*toy_pair)
    np.testing.assert_array_equal(nearest.a_to_b.mutual, expected >= 0)


@pytest.mark.parametrize("matching", ONE_TO_ONE)
@pytest.mark.parametrize("signed", [True, False])
def test_one_to_one_is_the_same_pairs_from_both_sides(toy_pair, matching, signed):
    c = sg.compare(*toy_pair, matching=matching, signed=signed)
    pairs = {(i, j) for i, j in zip(c.a_to_b.source_ids, c.a_to_b.partner, strict=True) if j >= 0}
    back = {(i, j) for j, i in zip(c.b_to_a.source_ids, c.b_to_a.partner, strict=True) if i >= 0}
    assert pairs == back
    assert c.a_to_b.multiplicity.max() == 1
    assert c.a_to_b.n_matched == c.b_to_a.n_matched == len(pairs)
    assert c.a_to_b.mean_similarity == pytest.approx(c.b_to_a.mean_similarity)
    if matching != "mutual":
        assert len(pairs) == min(c.a.n_latents, c.b.n_latents)


def test_the_matchings_are_ordered(toy_pair):
    total = {m: float(np.nansum(sg.compare(*toy_pair, matching=m).a_to_b.similarity)) for m in MATCHINGS}
    assert total["nearest"] >= total["optimal"] >= total["greedy"]


# ---- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_dictionary_against_itself_is_the_identity(rng, matching):
    a = make(rng.standard_normal((40, 16)))
    c = sg.compare(a, a, matching=matching)
    for m in (c.a_to_b, c.b_to_a):
        np.testing.assert_array_equal(m.partner, m.source_ids)
        np.testing.assert_allclose(m.similarity, 1, atol=1e-6)
        assert m.mutual.all()
        assert m.coverage == 1
    assert c.a.name != c.b.name


@pytest.mark.parametrize("matching", MATCHINGS)
def test_rotating_both_changes_nothing(rng, matching):
    a, b = oracles.related_decoders(rng, 50, 50, 24, shared=40)
    q, _ = np.linalg.qr(rng.standard_normal((24, 24)))
    before = sg.compare(make(a, "a"), make(b, "b"), matching=matching)
    after = sg.compare(make(a @ q, "a"), make(b @ q, "b"), matching=matching)
    np.testing.assert_array_equal(before.a_to_b.partner, after.a_to_b.partner)
    np.testing.assert_allclose(before.a_to_b.similarity, after.a_to_b.similarity, atol=1e-6)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_permuting_rows_permutes_the_answer(rng, matching):
    a, b = oracles.related_decoders(rng, 50, 40, 24, shared=30)
    p, q = rng.permutation(50), rng.permutation(40)
    before = sg.compare(make(a, "a"), make(b, "b"), matching=matching).a_to_b
    after = sg.compare(make(a[p], "a"), make(b[q], "b"), matching=matching).a_to_b
    back = np.where(after.partner >= 0, q[after.partner], -1)
    np.testing.assert_array_equal(back, before.partner[p])
    np.testing.assert_array_equal(after.similarity, before.similarity[p])


def test_rescaling_raw_rows_changes_nothing(rng):
    a, b = oracles.related_decoders(rng, 50, 40, 24, shared=30)
    scale = rng.uniform(0.01, 100, (50, 1))
    before, after = sg.compare(make(a, "a"), make(b, "b")).a_to_b, sg.compare(make(a * scale, "a"), make(b, "b")).a_to_b
    np.testing.assert_array_equal(before.partner, after.partner)
    np.testing.assert_allclose(before.similarity, after.similarity, atol=1e-6)


def test_swapping_the_inputs_swaps_the_directions(toy_pair):
    a, b = toy_pair
    for matching in MATCHINGS:
        one, two = sg.compare(a, b, matching), sg.compare(b, a, matching)
        if matching != "optimal":
            np.testing.assert_array_equal(one.a_to_b.partner, two.b_to_a.partner)
        np.testing.assert_allclose(one.a_to_b.mean_similarity, two.b_to_a.mean_similarity, atol=1e-12)


# ---- encoders, limits, double counting ----------------------------------------------------------------------------


@pytest.fixture
def with_encoders(rng):
    a, b = oracles.related_decoders(rng, 40, 30, 12, shared=25)
    return tuple(
        Dictionary.from_decoder(w, latent_axis=0, encoder=w + rng.standard_normal(w.shape), name=n)
        for w, n in ((a, "a"), (b, "b"))
    )


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("on", ["decoder", "encoder", "both"])
def test_each_side_is_compared(with_encoders, on, matching):
    a, b = with_encoders
    decoder, encoder = (
        exact_cosines(a.directions, b.directions),
        exact_cosines(a.encoder_directions, b.encoder_directions),
    )
    scores = {"decoder": decoder, "encoder": encoder, "both": (decoder + encoder) / 2}[on]
    c = sg.compare(a, b, matching, on=on)
    m = c.a_to_b
    matched = np.flatnonzero(m.partner_row >= 0)
    np.testing.assert_allclose(m.similarity[matched], scores[matched, m.partner_row[matched]], atol=1e-15)
    if matching == "nearest":
        np.testing.assert_array_equal(m.partner_row, scores.argmax(axis=1))
    if matching == "optimal":
        rows, cols = linear_sum_assignment(scores, maximize=True)
        assert np.nansum(m.similarity) == pytest.approx(scores[rows, cols].sum(), abs=1e-12)
    assert {"decoder": "one, cosine", "encoder": "encoder cosine", "both": "mean of"}[on] in repr(c)
    assert np.isnan(m.isotropic_chance) == (on == "both")
    assert 0 < m.chance < 1


def test_an_encoder_that_is_not_there(toy_pair):
    with pytest.raises(ValueError, match="'a' has no encoder"):
        sg.compare(*toy_pair, on="encoder")


def test_min_similarity_is_optimal_and_not_a_cut(with_encoders):
    a, b = with_encoders
    c = sg.compare(a, b, "optimal", min_similarity=0.5)
    assert (c.a_to_b.similarity[c.a_to_b.partner >= 0] >= 0.5).all()
    scores = dense(c)
    rows, cols = linear_sum_assignment(np.maximum(scores - 0.5, 0), maximize=True)
    best = np.maximum(scores - 0.5, 0)[rows, cols].sum()
    assert np.nansum(c.a_to_b.similarity - 0.5) == pytest.approx(best, abs=1e-12)
    with pytest.raises(ValueError, match="require matching='optimal'"):
        sg.compare(a, b, "greedy", min_similarity=0.5)


def test_double_counting_is_decomposed(with_encoders):
    c = sg.compare(*with_encoders)
    d = c.double_counting()
    table = d.to_pandas().set_index(["matching", "direction"])["mean_similarity"]
    assert table["nearest", "a_to_b"] == c.a_to_b.mmcs
    for matching in ONE_TO_ONE:
        assert table[matching, "both"] == sg.compare(*with_encoders, matching).a_to_b.mean_similarity
    optimal = sg.compare(*with_encoders, "optimal")
    m = optimal.a_to_b.partner >= 0
    assert d.explained_a_to_b == pytest.approx(1 - optimal.a_to_b.mean_similarity / c.a_to_b.similarity[m].mean())
    assert d.explained_b_to_a == pytest.approx(1 - optimal.b_to_a.mean_similarity / c.b_to_a.mmcs)
    assert 0 <= d.explained_b_to_a < 1
    assert "double counting explains" in str(d)
    assert json.loads(to_json(c.summary()))["double_counting"]["hubs_of_b"]


def test_hubs_name_their_claimants():
    e = np.eye(4)
    c = sg.compare(make(e[[0, 0, 0, 1]] + 0.1 * np.arange(4)[:, None] * e[3], "a"), make(e[[2, 0, 1]], "b"))
    [hub] = c.double_counting().hubs_of_b
    assert (hub.target, hub.target_id, hub.times_taken, hub.claimants) == ("b", 1, 3, (0, 1, 2))
    assert list(hub.similarities) == sorted(hub.similarities, reverse=True)
    assert hub.similarities[0] == 1.0


def test_counting_bars_are_the_means(toy_pair):
    c = sg.compare(*toy_pair)
    ax = c.plot_double_counting()
    assert [bar.get_width() for bar in ax.patches] == [x.mean_similarity for x in c.double_counting().counts]


_MEMORY = """
import torch, sae_geometry as sg
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
def dictionary(name, n, seed):
    rows = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
    return sg.Dictionary.from_decoder(rows, latent_axis=0, name=name)
a, b = dictionary("a", 3000, 0), dictionary("b", 3000, 1)
sg.compare(a, b)  # compile and start everything
a, b = dictionary("a", 40_000, 0), dictionary("b", 40_000, 1)
open("/proc/self/clear_refs", "w").write("5")  # resets the high-water mark
before = peak()
c = sg.compare(a, b)
print(peak() - before)
"""


def test_memory_above_the_inputs_is_flat():
    import subprocess
    import sys
    from pathlib import Path

    env = {"PYTHONPATH": str(Path(sg.__file__).parents[1]), "OMP_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True, env=env)
    # The whole matrix would be 6,400 MB in float32.
    assert float(done.stdout) < 300


def test_mmcs_is_of_nearest_partners_alone(rng):
    a, b = make(rng.standard_normal((20, 8)), "a"), make(rng.standard_normal((20, 8)), "b")
    for matching in ("mutual", "greedy", "optimal"):
        made = sg.compare(a, b, matching, turns=0).a_to_b
        with pytest.raises(ValueError, match=f"for {matching}, use mean_similarity"):
            made.mmcs  # noqa: B018
        assert made.mean_similarity <= sg.compare(a, b).a_to_b.mmcs or matching == "mutual"
