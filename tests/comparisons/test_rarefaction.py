"""Rarefaction: the curve by brute force over choices of runs; Chao2 and the extrapolation on planted communities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sae_geometry.comparisons import foretelling
from sae_geometry.comparisons.rarefaction import rarefaction


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


COMMUNITIES = {
    "equal": lambda rng, n: np.full(n, 0.33),
    "uneven": lambda rng, n: rng.beta(1.0, 2.0, n),
    "some by all, many by one": lambda rng, n: np.where(rng.random(n) < 0.45, rng.beta(0.6, 6, n), rng.beta(2, 0.6, n)),
}


def test_what_is_foretold_comes_true():
    """2,000 latents, each found with a chance of its own: N runs foretell 2N, whatever the distribution of chances."""
    covered, errors = [], []
    for name, chances in COMMUNITIES.items():
        for n in (3, 5, 9):
            for seed in range(12):
                rng = np.random.default_rng([seed, n])
                found = rng.random((2000, 2 * n)) < chances(rng, 2000)[:, None]
                r = rarefaction(incidence_of(found[:, :n]))
                truth = found.any(axis=1).sum()
                errors.append(r.further[-1] / truth - 1)
                covered.append(r.further_low[-1] <= truth <= r.further_high[-1])
                assert r.further[-1] == pytest.approx(truth, rel=0.1), (name, n, seed)
    assert 0.90 <= np.mean(covered) <= 0.99  # of 108
    assert abs(np.mean(errors)) < 0.01


def test_the_mixture_has_the_largest_likelihood_on_its_grid(rng):
    """No weight moved from one chance to another makes the counts likelier."""
    n = 6
    found = rng.random((3000, n)) < rng.beta(1.0, 2.0, 3000)[:, None]
    q = incidence_of(found).astype(float)
    p = foretelling._grid(n)
    kernel = foretelling._kernel(p, n)
    weights = foretelling._weights(q[None], kernel)[0]
    assert weights.sum() == pytest.approx(1)
    slope = kernel @ (q / q.sum() / (weights @ kernel))  # 1 where there is weight, no more anywhere, at the maximum
    assert slope.max() < 1.001
    assert slope[weights > 1e-3] == pytest.approx(1, abs=1e-3)


def test_two_runs_foretell_nothing():
    r = rarefaction(np.array([50, 30]))
    assert len(r.further) == 0
    assert "takes three runs" in str(r)
    assert r.richness > 80


def test_uneven_chances_make_a_lower_bound(rng):
    found = rng.random((2000, 5)) < rng.beta(1.0, 2.0, 2000)[:, None]
    r = rarefaction(incidence_of(found))
    assert r.richness < 2000
    assert "lower bound" in str(r)


def test_the_curve_is_covered_too():
    """The interval of what N runs find holds the expectation over draws of the runs."""
    chance = np.random.default_rng(7).beta(1.0, 2.0, 2000)
    covered = []
    for seed in range(100):
        found = np.random.default_rng(seed).random((2000, 4)) < chance[:, None]
        r = rarefaction(incidence_of(found), n_further=0)
        covered.append(r.low[-1] <= (1 - (1 - chance) ** 4).sum() <= r.high[-1])
    assert 0.88 <= np.mean(covered) <= 1


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
