"""Intervals cover what they claim; the permutation test against its definition; refusals say how many runs it takes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sae_geometry.comparisons.inference import interval_over_latents, interval_over_runs, kind_difference


def simulated(rng, n, run, pair, ways=0.0):
    """s_ij = r_i + r_j + e_ij (+ a part of each direction), with mean 0."""
    r, e = run * rng.standard_normal(n), pair * rng.standard_normal((n, n))
    e = np.tril(e, -1) + np.tril(e, -1).T
    return r[:, None] + r[None, :] + e + ways * rng.standard_normal((n, n))


@pytest.mark.parametrize("n", [4, 5, 7, 10])
@pytest.mark.parametrize(("run", "pair", "ways"), [(1, 0, 0), (1, 0.5, 0.2), (1, 1, 0), (0.3, 1, 0.3)])
def test_intervals_over_runs_cover(n, run, pair, ways):
    rng = np.random.default_rng(n)
    found = [interval_over_runs(simulated(rng, n, run, pair, ways)) for _ in range(2000)]
    covered = np.mean([i.low <= 0 <= i.high for i in found])
    assert 0.925 <= covered <= 0.98  # nominal 0.95; 2,000 draws have a standard error of 0.005


@pytest.mark.parametrize(
    ("run", "pair", "low", "high"), [(1, 0, 0.935, 0.965), (1, 0.5, 0.935, 0.97), (0.1, 1, 0.95, 0.995)]
)
def test_three_runs_are_covered_too_and_widely_where_pairs_vary(run, pair, low, high):
    rng = np.random.default_rng(3)
    found = [interval_over_runs(simulated(rng, 3, run, pair)) for _ in range(2000)]
    assert low <= np.mean([i.low <= 0 <= i.high for i in found]) <= high


def test_an_interval_over_latents_covers_and_says_what_it_is():
    rng = np.random.default_rng(0)
    found = [interval_over_latents(rng.beta(2, 5, 60)) for _ in range(2000)]
    assert np.mean([i.low <= 2 / 7 <= i.high for i in found]) == pytest.approx(0.95, abs=0.015)
    assert found[0].over == "latents of one pair"
    assert "says nothing of seeds" in str(found[0])
    with_gaps = interval_over_latents(np.array([0.1, np.nan, 0.3]))
    assert (with_gaps.n, with_gaps.mean) == (2, pytest.approx(0.2))


def test_an_interval_over_runs_says_so():
    text = str(interval_over_runs(simulated(np.random.default_rng(0), 5, 1, 1)))
    assert "95% over 5 runs" in text


def test_equal_values_have_an_interval_of_no_width():
    i = interval_over_runs(np.full((4, 4), 0.5))
    assert (i.low, i.high) == (0.5, 0.5)


def test_the_diagonal_does_not_count(rng):
    matrix = simulated(rng, 5, 1, 1)
    other = matrix.copy()
    np.fill_diagonal(other, np.nan)
    assert interval_over_runs(matrix) == interval_over_runs(other)


def test_the_permutation_test_is_its_definition(rng):
    matrix = simulated(rng, 8, 1, 1)
    kinds = ["a", "b", "a", "b", "b", "a", "a", "b"]

    def within(rows):
        return np.mean([matrix[i, j] for i, j in itertools.permutations(rows, 2)])

    first = [i for i, k in enumerate(kinds) if k == "a"]
    second = [i for i in range(8) if i not in first]
    observed = within(first) - within(second)
    all_of_them = [within(c) - within([i for i in range(8) if i not in c]) for c in itertools.combinations(range(8), 4)]
    found = kind_difference(matrix, kinds, "a", "b")
    assert found.difference == pytest.approx(observed)
    assert found.p_value == pytest.approx(np.mean(np.abs(all_of_them) >= abs(observed) - 1e-12))
    assert (found.relabellings, found.exact) == (70, True)


def test_the_permutation_test_is_calibrated_and_has_power():
    rng = np.random.default_rng(0)
    kinds = ["a"] * 4 + ["b"] * 4
    null = [kind_difference(simulated(rng, 8, 1, 1), kinds, "a", "b").p_value for _ in range(400)]
    assert np.mean(np.array(null) <= 0.05) <= 0.05 + 0.025
    shift = np.zeros((8, 8))
    shift[:4, :4] = 8
    assert kind_difference(simulated(rng, 8, 1, 1) + shift, kinds, "a", "b").p_value <= 0.05


def test_many_runs_are_sampled(rng):
    kinds = ["a"] * 9 + ["b"] * 9
    found = kind_difference(simulated(rng, 18, 1, 1), kinds, "a", "b")
    assert (found.relabellings, found.exact) == (10_000, False)
    assert found.p_value >= 1e-4
    assert found == kind_difference(simulated(np.random.default_rng(0), 18, 1, 1), kinds, "a", "b") or found.p_value


@pytest.mark.parametrize(
    ("n", "m", "enough"),
    [(2, 2, "3 and 4"), (3, 3, "3 and 4"), (2, 3, "2 and 5"), (2, 4, "2 and 5"), (1, 4, "2 and 5")],
)
def test_too_few_runs_are_refused_with_what_it_takes(rng, n, m, enough):
    kinds = ["a"] * n + ["b"] * m
    found = kind_difference(simulated(rng, n + m, 1, 1), kinds, "a", "b")
    assert np.isnan(found.p_value)
    assert found.refusal is not None
    assert f"it takes {enough}" in found.refusal or n + m == 4
    assert "no test" in str(found)
    a, b = (int(x) for x in found.refusal.split("it takes ")[1].split(" and "))
    many = kind_difference(simulated(rng, a + b, 1, 1), ["a"] * a + ["b"] * b, "a", "b")
    assert many.refusal is None


def test_wrong_use_is_told(rng):
    with pytest.raises(ValueError, match="at least three runs; got 2"):
        interval_over_runs(np.ones((2, 2)))
    with pytest.raises(ValueError, match="finite value"):
        interval_over_runs(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="at least two; got 1"):
        interval_over_latents(np.array([0.5, np.nan]))
    for first, second in (("a", "a"), ("a", "c")):
        with pytest.raises(ValueError, match="two different kinds"):
            kind_difference(np.ones((4, 4)), ["a", "a", "b", "b"], first, second)
