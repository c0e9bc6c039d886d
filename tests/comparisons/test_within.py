"""Within-dictionary similarity: self excluded by index, never by value."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import sae_geometry as sg
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


def test_one_latent_has_no_partner():
    w = sg.within(make([[1, 0]]))
    assert w.nearest.partner.tolist() == [-1]
    assert np.isnan(w.mmcs)
    assert np.isnan(w.nearest.chance)
    assert not w.nearest.significant.any()
    assert "too few for any to be significant" in repr(w)


def test_it_says_what_it_did(demo):
    w = sg.within(demo["e2e-seed0"])
    assert "self excluded" in repr(w)
    assert w.summary()["self"] == "excluded by index"
    assert w.nearest.isotropic_chance == sg.expected_max_cosine(1525, 576)
    assert f"{w.nearest.chance:.3f}" in repr(w)
    assert w.nearest.chance == pytest.approx(0.1815, abs=0.002)
    assert len(w.to_pandas()) == 1526
