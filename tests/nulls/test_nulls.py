"""Tests of the isotropic null against published values, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sae_geometry as sg
from sae_geometry.matching import match
from sae_geometry.nulls import expected_max_cosine


@pytest.mark.parametrize(
    ("d", "m", "published"),
    [(768, 22_000, 0.145), (768, 46_080, 0.151), (512, 32_768, 0.181), (768, 4096, 0.131), (768, 1024, 0.117)],
)
def test_published_values(d, m, published):
    assert expected_max_cosine(m, d) == pytest.approx(published, abs=0.001)


def test_published_value_of_one_to_one_matchings():
    x, y = (torch.from_numpy(sg.random_directions(1024, 768, seed=k)) for k in (0, 1))
    assert match(x, y, "optimal").total / 1024 == pytest.approx(0.112, abs=0.001)


def test_closed_forms():
    assert expected_max_cosine(1, 5) == pytest.approx(0, abs=1e-9)
    assert expected_max_cosine(1, 2, absolute=True) == pytest.approx(2 / np.pi, abs=1e-4)
    assert expected_max_cosine(1, 3, absolute=True) == pytest.approx(1 / 2, abs=1e-6)
    # On a sphere the cosine is uniform: (m − 1)/(m + 1).
    assert expected_max_cosine(9, 3) == pytest.approx(0.8, abs=1e-5)
    assert expected_max_cosine(2, 1) == pytest.approx(0.5)
    assert expected_max_cosine(7, 1, absolute=True) == 1.0


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("d", "m"), [(2, 3), (5, 40), (64, 500), (128, 1024)])
def test_agrees_with_simulation(d, m, absolute, rng):
    # Candidates are isotropic, so the fixed direction may be the first axis.
    g = rng.standard_normal((2000, m, min(d, 2)))
    tail = rng.chisquare(d - 1, (2000, m)) if d > 2 else g[..., 1] ** 2
    cos = g[..., 0] / np.sqrt(g[..., 0] ** 2 + tail)
    best = (np.abs(cos) if absolute else cos).max(axis=1)
    error = best.std() / np.sqrt(len(best))
    assert expected_max_cosine(m, d, absolute=absolute) == pytest.approx(best.mean(), abs=4 * error)


def test_grows_with_candidates_and_falls_with_width():
    values = [expected_max_cosine(m, 256) for m in (1, 10, 1000, 10**6)]
    assert values == sorted(values)
    assert expected_max_cosine(1000, 64) > expected_max_cosine(1000, 1024)


@pytest.mark.parametrize(("m", "d"), [(0, 5), (5, 0)])
def test_no_candidates_are_refused(m, d):
    with pytest.raises(ValueError, match="at least one"):
        expected_max_cosine(m, d)


def test_random_directions_have_the_isotropic_mean(rng):
    x, y = sg.random_directions(400, 48), sg.random_directions(900, 48, seed=1)
    best = (x @ y.T).max(axis=1)
    assert best.mean() == pytest.approx(expected_max_cosine(900, 48), abs=4 * float(best.std()) / 20)
    assert np.linalg.norm(x, axis=1) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(x, sg.random_directions(400, 48))
    with pytest.raises(ValueError, match="at least one"):
        sg.random_directions(0, 48)
