"""Rarefaction: the curve by brute force over choices of runs; Chao2 and the extrapolation on planted communities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sae_geometry.rarefaction import rarefaction


def incidence_of(found):
    """[S, N] bool → how many were found by exactly 1 … N runs."""
    times = found.sum(axis=1)
    return np.bincount(times, minlength=found.shape[1] + 1)[1:]


def test_the_curve_is_the_mean_over_choices_of_runs(rng):
    found = rng.random((50, 6)) < rng.random((50, 1))
    r = rarefaction(incidence_of(found))
    for k in range(1, 7):
        sizes = [found[:, list(c)].any(axis=1).sum() for c in itertools.combinations(range(6), k)]
        assert r.expected[k - 1] == pytest.approx(np.mean(sizes))
    assert r.expected[-1] == r.n_distinct
    assert (np.diff(r.expected) >= 0).all()


def test_what_is_extrapolated_comes_true():
    """2,000 latents, each found by a third of the runs: 5 runs foretell 10."""
    covered, richness = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        chance = np.full(2000, 0.33)
        found = rng.random((2000, 10)) < chance[:, None]
        r = rarefaction(incidence_of(found[:, :5]))
        truth = found.any(axis=1).sum()
        assert r.further[-1] == pytest.approx(truth, rel=0.03)
        covered.append(r.further_low[-1] <= truth <= r.further_high[-1])
        richness.append(r.richness)
    assert np.mean(covered) >= 0.85
    assert np.mean(richness) == pytest.approx(2000, rel=0.03)


def test_uneven_chances_make_a_lower_bound(rng):
    found = rng.random((2000, 5)) < rng.beta(1.0, 2.0, 2000)[:, None]
    assert rarefaction(incidence_of(found)).richness < 2000


def test_chao2_by_hand():
    r = rarefaction(np.array([10, 4, 2]))
    assert r.richness == pytest.approx(16 + 2 / 3 * 100 / 8)
    assert rarefaction(np.array([10, 0, 2])).richness == pytest.approx(12 + 2 / 3 * 45)
    assert r.richness_low > 16
    assert r.richness_low < r.richness < r.richness_high


def test_nothing_unseen_where_all_is_shared():
    r = rarefaction(np.array([0, 0, 7]))
    assert r.richness == 7
    assert (r.further == 7).all()
    assert "7 distinct latents in 3 runs" in str(r)


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="two runs; got 1"):
        rarefaction(np.array([3]))
    for wrong in ([0, 0], [-1, 4]):
        with pytest.raises(ValueError, match="not negative and not all zero"):
            rarefaction(np.array(wrong))
