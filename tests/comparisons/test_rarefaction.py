"""Tests of rarefaction: the curve by brute force over subsets of runs; Chao2 and extrapolation on planted data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import sae_geometry as sg
from benchmarks.inference import COMMUNITIES, forecast, noisy_runs
from sae_geometry.comparisons import rarefaction as module
from sae_geometry.comparisons.consensus import consensus, explained_up_to
from sae_geometry.comparisons.rarefaction import rarefaction


def incidence_of(found):
    """Return the number of latents found by exactly 1 … N runs, from bool [S, N]."""
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


@pytest.mark.parametrize("case", COMMUNITIES)
def test_extrapolations_hold_for_more_runs(case):
    """N runs must predict the count for 2N runs, for 600 latents with any distribution of detection probabilities."""
    for n in (3, 6):
        rng = np.random.default_rng([n, len(case)])
        held, width, off = np.array([forecast(rng, case, n, 600) for _ in range(3)]).T
        assert held.all(), n  # The longer simulation holds at least 98 of 100.
        assert width.mean() < 0.6, n
        assert abs(off.mean()) < 0.15, n


@pytest.mark.parametrize(("rare", "share"), [(0.02, 0.8), (0.1, 0.4), (0.45, 0.3)])
def test_an_extrapolation_ranges_over_all_mixtures_that_the_counts_allow(rare, share):
    """N counts cannot determine the truth, so the interval has a width and holds it even without sampling error."""
    n = 3
    chances, weights = np.array([rare, 0.97]), 2000 * np.array([share, 1 - share])
    counts = np.array([(weights * math.comb(n, k) * chances**k * (1 - chances) ** (n - k)).sum() for k in (1, 2, 3)])
    r = rarefaction(counts.round())
    new = (weights * ((1 - chances) ** n - (1 - chances) ** (2 * n))).sum()
    assert r.further_low[-1] <= counts.sum() + new <= r.further_high[-1]
    assert r.further_high[-1] - r.further_low[-1] > 2 * np.sqrt(new)


@pytest.mark.parametrize(("features", "d", "private"), [(240, 192, 40), (150, 128, 0)])
def test_a_noisy_feature_is_counted_once(features, d, private):
    """Copies have cosines of 0.56 to 0.90 to each other, so the threshold alone splits many of them in two.

    The smaller runs share about forty latents each, fewer than the hundred wins that are needed.
    """
    rows, true = noisy_runs(np.random.default_rng(4), 3, features, d, fidelity=(0.75, 0.95), private=private)
    runs = [
        sg.Dictionary.from_decoder(r, latent_axis=0, name=f"r{k}", model="m", hook_point="h")
        for k, r in enumerate(rows)
    ]
    s = sg.seeds(runs)
    assert s.rarefaction.n_distinct == pytest.approx(true, rel=0.02)
    assert s.rarefaction.low[-1] <= true <= s.rarefaction.high[-1]
    assert "one-to-one similarity > 0." in repr(s.consensus)
    split = consensus(runs, *s._partners, threshold=0.7)
    assert split.incidence.sum() > 1.15 * true


def test_the_level_of_links_is_above_what_own_latents_reach():
    def level(similarity, own, times=100):
        return explained_up_to(np.repeat(similarity, times), np.repeat(own, times))

    own = [0.2, 0.3, 0.4, 0.3]
    assert level([0.9, 0.8, 0.5, 0.1], own) == 0.3  # Only the last latent loses, at 0.3.
    assert level([0.9, 0.8, 0.35, 0.1], own) == 0.4  # The third latent loses at 0.4.
    assert level([0.1, 0.1, 0.1, 0.1], own) == np.inf
    assert level([0.9, 0.8, 0.5, 0.4], own) == -1  # No decoy wins.
    assert level([0.9, 0.8, 0.5, 0.4], own, 24) == 0.4  # With only 96 wins, the level is the largest own similarity.
    assert level([0.9, 0.8, 0.5, 0.1], own, 7) == 0.4  # 21 wins suffice
    assert level([0.9, 0.8, 0.5, 0.1], own, 6) == np.inf  # 18 wins are too few
    assert level([0.9, np.nan], [0.95, 0.1]) == np.inf
    assert level([0.9, np.nan], [np.nan, 0.1]) == level([0.9, np.nan], [-np.inf, 0.1]) == 0.1
    many, few = np.full(200, 0.9), np.array([0.95, 0.3])
    assert explained_up_to(np.append(many, [0.1, 0.1]), np.append(np.full(200, 0.2), few)) == 0.3


def test_the_mixture_has_the_largest_likelihood_on_its_grid(rng):
    """No weight moved from one grid point to another may increase the likelihood of the counts."""
    n = 6
    found = rng.random((3000, n)) < rng.beta(1.0, 2.0, 3000)[:, None]
    q = incidence_of(found).astype(float)
    p = module._grid(n)
    kernel = module._kernel(p, n)
    weights = module._weights(q, kernel)
    assert weights.sum() == pytest.approx(1)
    # At the maximum the slope is 1 on the support and at most 1 elsewhere.
    slope = kernel @ (q / q.sum() / (weights @ kernel))
    assert slope.max() < 1.001
    assert slope[weights > 1e-3] == pytest.approx(1, abs=1e-3)


def test_two_runs_extrapolate_nothing():
    r = rarefaction(np.array([50, 30]))
    assert len(r.further) == 0
    assert "no extrapolation: at least three runs are needed" in str(r)
    assert r.summary()["further_refused"] == r.refusal
    assert r.richness > 80


def test_uneven_chances_make_a_lower_bound(rng):
    found = rng.random((2000, 5)) < rng.beta(1.0, 2.0, 2000)[:, None]
    r = rarefaction(incidence_of(found))
    assert r.richness < 2000
    assert "lower bound" in str(r)


def test_the_curve_is_covered_too():
    """The interval for N runs must hold the expected count over draws of the runs."""
    chance = np.random.default_rng(7).beta(1.0, 2.0, 2000)
    covered = []
    for seed in range(100):
        found = np.random.default_rng(seed).random((2000, 4)) < chance[:, None]
        r = rarefaction(incidence_of(found), refusal="not asked")
        covered.append(r.low[-1] <= (1 - (1 - chance) ** 4).sum() <= r.high[-1])
    assert 0.88 <= np.mean(covered) <= 1


def test_chao2_by_hand():
    r = rarefaction(np.array([10, 4, 2]))
    assert r.richness == pytest.approx(16 + 2 / 3 * 100 / 8)
    none_twice = rarefaction(np.array([10, 0, 2]))
    assert np.isnan([none_twice.richness, none_twice.richness_low, none_twice.richness_high]).all()
    assert "Chao2" not in str(none_twice)
    assert "nan" not in str(none_twice)
    assert none_twice.high[-1] > 12  # The curve still has an interval.
    assert r.richness_low > 16
    assert r.richness_low < r.richness < r.richness_high


def test_nothing_unseen_where_all_is_shared():
    r = rarefaction(np.array([0, 0, 7]))
    assert r.richness == 7
    assert r.further == pytest.approx(7, abs=0.1)
    assert r.further_low[-1] == 7 < r.further_high[-1] < 16  # Three runs cannot exclude a few more latents.
    assert "7 distinct latents in 3 runs" in str(r)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="two runs; got 1"):
        rarefaction(np.array([3]))
    for wrong in ([0, 0], [-1, 4]):
        with pytest.raises(ValueError, match="non-negative counts of distinct latents"):
            rarefaction(np.array(wrong))
