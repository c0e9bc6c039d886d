"""Tests of within-dictionary similarity: each latent is excluded from its own candidates by index, never by value."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import sae_geometry as sg
from sae_geometry.comparisons import coherence as module
from sae_geometry.dictionary import Dictionary


def make(w):
    return Dictionary.from_decoder(np.asarray(w, dtype=float), latent_axis=0, name="x")


@pytest.mark.parametrize("signed", [True, False])
def test_equals_the_dense_definition_on_the_demo(demo, signed):
    d = demo["local-narrow-seed0"]
    s = oracles.dense_cosines(d.directions.numpy(), d.directions.numpy())
    s = s if signed else np.abs(s)
    np.fill_diagonal(s, -np.inf)
    w = sg.within(d, signed=signed)
    np.testing.assert_allclose(w.nearest.similarity, s.max(axis=1), atol=1e-12)
    np.testing.assert_array_equal(w.nearest.partner, d.latent_ids.numpy()[s.argmax(axis=1)])
    assert w.mmcs == pytest.approx(s.max(axis=1).mean())


def test_a_duplicate_is_a_partner_and_self_is_not():
    w = sg.within(make([[1, 0], [1, 0], [0, 1]]))
    assert w.nearest.partner.tolist() == [1, 0, 0]
    assert w.nearest.similarity.tolist() == [1, 1, 0]
    assert w.nearest.mutual.tolist() == [True, True, False]


def test_a_negative_similarity_is_reported_as_it_is():
    w = sg.within(make([[1, 0], [-1, 0]]))
    assert w.nearest.similarity.tolist() == [-1, -1]
    assert sg.within(make([[1, 0], [-1, 0]]), signed=False).nearest.similarity.tolist() == [1, 1]


@pytest.mark.parametrize(("n", "d"), [(90, 24), (20, 24)])
def test_coherence_is_its_definition(rng, n, d, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 32)  # This makes several tiles, the last one smaller.
    x = oracles.unit(rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5).astype(np.float32)
    made = sg.within(x).coherence
    size = np.abs(oracles.dense_cosines(x, x))
    others = -np.sort(-size[~np.eye(n, dtype=bool)].reshape(n, n - 1), axis=1)
    k = min(64, n - 1)
    np.testing.assert_allclose(made.cumulative, np.cumsum(others, axis=1).max(axis=0)[:k], atol=1e-6)
    assert made.mean_absolute_cosine == pytest.approx(others.mean(), abs=1e-6)
    powers = np.linalg.svd(x.astype(float), compute_uv=False) ** 2 / n
    np.testing.assert_allclose(made.spectrum, powers, atol=1e-6)
    assert made.spectrum.sum() == pytest.approx(1, abs=1e-5)
    assert made.effective_rank == pytest.approx(1 / (powers**2).sum(), rel=1e-4)
    for share in (0.5, 0.9):
        assert made.dimensions_for(share) == 1 + np.flatnonzero(np.cumsum(powers) >= share)[0]


def test_orthogonal_directions_have_no_coherence_and_full_rank():
    w = sg.within(np.eye(6, 9))
    assert w.coherence.cumulative.tolist() == [0] * 5
    assert w.coherence.mean_absolute_cosine == 0
    assert w.coherence.effective_rank == pytest.approx(6)
    assert w.coherence.dimensions_for(1.0) == 6
    assert "effective rank 6" in repr(w)
    assert w.summary()["coherence"]["cumulative_coherence"]["4"] == 0


def test_one_latent_has_no_partner():
    w = sg.within(make([[1, 0]]))
    assert w.nearest.partner.tolist() == [-1]
    assert np.isnan(w.mmcs)
    assert np.isnan(w.nearest.chance)
    assert np.isnan(w.coherence.mean_absolute_cosine)
    assert w.coherence.effective_rank == 1
    assert not w.nearest.significant.any()
    assert "too few for any to be significant" in repr(w)


def test_it_says_what_it_did(demo):
    w = sg.within(demo["e2e-seed0"])
    text = " ".join(w.details().split())
    assert "self excluded" in text
    assert w.summary()["self"] == "excluded by index"
    assert w.nearest.isotropic_chance == sg.expected_max_cosine(1535, 576)
    assert f"{w.nearest.chance:.3f}" in text
    assert w.nearest.chance == pytest.approx(0.1989, abs=0.002)
    assert len(w.to_pandas()) == 1536
