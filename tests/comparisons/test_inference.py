"""Tests of intervals (coverage), the test between kinds (size and power), and refusals.

The populations are those of benchmarks/inference.py; benchmarks/RESULTS_inference.md has longer tables.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.inference import OVER_RUNS, between, intervals_of, one_failed, p_of_kinds, two_ways
from sae_geometry.comparisons.inference import (
    interval_of_share,
    interval_over_latents,
    interval_over_runs,
    kind_difference,
    runs_apart,
)


def simulated(rng, n, run, pair, ways=0.0):
    """Return s_ij = r_i + r_j + e_ij (plus a part for each direction), with mean 0."""
    r, e = run * rng.standard_normal(n), pair * rng.standard_normal((n, n))
    e = np.tril(e, -1) + np.tril(e, -1).T
    return r[:, None] + r[None, :] + e + ways * rng.standard_normal((n, n))


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize(("run", "pair", "ways"), [(1, 0, 0), (1, 0.5, 0.2), (1, 1, 0), (0.3, 1, 0.3)])
def test_intervals_over_runs_cover(n, run, pair, ways):
    rng = np.random.default_rng(n)
    found = [interval_over_runs(simulated(rng, n, run, pair, ways)) for _ in range(600)]
    covered = np.mean([i.low <= 0 <= i.high for i in found])
    # The nominal coverage is 0.95; over 600 draws its standard error is 0.009.
    assert 0.93 <= covered <= (0.998 if n < 7 else 0.99)


@pytest.mark.parametrize(("run", "pair", "low", "high"), [(1, 0, 0.94, 0.99), (1, 0.5, 0.94, 0.99), (0.1, 1, 0.95, 1)])
def test_three_runs_are_covered_too_and_widely_where_pairs_vary(run, pair, low, high):
    rng = np.random.default_rng(3)
    found = [interval_over_runs(simulated(rng, 3, run, pair)) for _ in range(600)]
    assert low <= np.mean([i.low <= 0 <= i.high for i in found]) <= high


@pytest.mark.parametrize("n", [3, 4, 10])
@pytest.mark.parametrize("case", [c for c in OVER_RUNS if "basins" not in c and (c, 3) != ("one failed run", 3)])
def test_shares_are_covered_and_stay_shares(case, n):
    """Without the logit scale and the allowance for skew, coverage drops to 0.90 and below."""
    found = list(intervals_of(case, n, 300))
    assert np.mean([i.low <= truth <= i.high for i, _, truth in found]) >= 0.925  # nominal 0.95, standard error 0.013
    assert all(0 <= i.low <= i.mean <= i.high <= 1 for i, _, _ in found)
    assert np.mean([i.high - i.low for i, _, _ in found]) < (0.9 if n == 3 else 0.8)


@pytest.mark.parametrize(
    ("case", "n"), [("two basins", 6), ("two basins", 10), ("three basins", 4), ("three basins", 6)]
)
def test_basins_are_covered_where_runs_enough_can_show_them(case, n):
    found = list(intervals_of(case, n, 300))
    assert np.mean([i.low <= truth <= i.high for i, _, truth in found]) >= 0.925


def test_few_runs_say_what_they_cannot_show(rng):
    """Three runs all lie in one of two basins with probability 1/4, and then their interval misses the mean."""
    level = np.full((3, 3), 0.8)
    text = str(interval_over_runs(between(rng, level, 0.01, 0.01)))
    assert "3 runs could miss another kind that accounts for up to 63% of runs" in text
    unseen = float(text.split("up to ")[1].split("%")[0]) / 100
    assert (1 - unseen) ** 3 == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("n", [5, 6, 10])
def test_one_failed_run_is_named(n):
    found = list(intervals_of("one failed run", n, 200))
    assert np.mean([apart for _, apart, _ in found]) >= 0.95
    matrix = one_failed()[1](np.random.default_rng(0), n)
    note = interval_over_runs(matrix, names=[f"seed{k}" for k in range(n)]).note
    assert note.startswith("seed0 stands apart: mean similarity ")
    assert f"the other {n - 1} runs" in note
    apart, rest = (float(note.split(before)[1].split()[0]) for before in ("mean similarity ", "against "))
    assert (apart, rest) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.8, abs=0.02))


def test_two_failed_runs_do_not_hide_each_other():
    rng = np.random.default_rng(1)
    level = np.full((10, 10), 0.8)
    level[:2] = level[:, :2] = 0.1
    assert sorted(runs_apart(between(rng, level, 0.01, 0.02))) == [0, 1]


def test_similar_runs_are_rarely_named():
    rng = np.random.default_rng(2)
    named = [bool(runs_apart(between(rng, np.full((6, 6), 0.75), 0.02, 0.02))) for _ in range(400)]
    assert np.mean(named) <= 0.035  # nominal 0.01 in each of at most three steps
    assert runs_apart(np.full((3, 3), 0.5)) == []
    assert runs_apart(np.full((6, 6), 0.5)) == []


def test_an_interval_of_shares_is_no_narrower_than_its_latents_determine():
    equal = interval_over_runs(np.full((4, 4), 0.5), latents=400)
    share = interval_of_share(200, 400)
    assert (equal.low, equal.high) == pytest.approx((share.low, share.high))
    all_shared = interval_over_runs(np.ones((4, 4)), latents=400)
    assert 0.98 < all_shared.low < all_shared.high == 1
    wide = between(np.random.default_rng(0), np.full((4, 4), 0.5), 0.1, 0.1)
    assert interval_over_runs(wide, latents=400) == interval_over_runs(wide)


def test_wilson_by_hand():
    none, share = interval_of_share(0, 10), interval_of_share(8, 10)
    assert (none.low, none.high) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert (share.low, share.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert (share.mean, share.over, share.n) == (0.8, "latents of one pair", 10)


@pytest.mark.parametrize(("n", "m", "d", "shared"), [(60, 60, 32, 60), (20, 20, 16, 20), (40, 80, 32, 20)])
def test_both_directions_of_one_pair_are_not_taken_for_independent(n, m, d, shared):
    """If all latents are shared, the standard error for independent directions covers only 0.85."""
    rng = np.random.default_rng([n, shared])
    found = [two_ways(rng, n, m, d, shared) for _ in range(500)]
    truth = np.mean([mean for mean, _ in found])
    covered = np.mean([i.low <= truth <= i.high for _, i in found])
    assert covered >= 0.925
    if shared == n == m:
        narrow = np.mean([abs(i.mean - truth) <= (i.high - i.mean) / np.sqrt(2) for _, i in found])
        assert narrow < 0.9
        assert covered < 0.98


def test_an_interval_over_latents_covers_and_says_what_it_is():
    rng = np.random.default_rng(0)
    found = [interval_over_latents(rng.beta(2, 5, 60)) for _ in range(1000)]
    assert np.mean([i.low <= 2 / 7 <= i.high for i in found]) == pytest.approx(0.95, abs=0.02)
    assert found[0].over == "latents of one pair"
    assert "says nothing about other seeds" in str(found[0])
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


def test_the_test_between_kinds_is_its_definition(rng):
    matrix = simulated(rng, 7, 1, 1)
    kinds = ["a", "b", "a", "b", "b", "a", "b"]
    first = [i for i, k in enumerate(kinds) if k == "a"]
    second = [i for i in range(7) if i not in first]

    def within(m, rows):
        return np.mean([m[i, j] for i, j in itertools.permutations(rows, 2)])

    observed = within(matrix, first) - within(matrix, second)
    shifted = matrix.copy()
    level = (within(matrix, first) + within(matrix, second)) / 2
    across = np.mean([(matrix[i, j] + matrix[j, i]) / 2 for i in first for j in second])
    for i, j in itertools.product(first, second):
        shifted[i, j] += level - across
        shifted[j, i] += level - across
    choices = list(itertools.combinations(range(7), 3))
    all_of_them = [within(shifted, c) - within(shifted, [i for i in range(7) if i not in c]) for c in choices]
    permutation = np.mean(np.abs(all_of_them) >= abs(observed) - 1e-12)
    found = kind_difference(matrix, kinds, "a", "b")
    assert found.difference == pytest.approx(observed)
    assert found.p_value >= permutation - 1e-12
    assert (found.permutations, found.exact) == (35, True)
    apart = kind_difference(between(rng, np.where(np.eye(7) == 1, 0, 0.5), 0.1, 0.1), kinds, "a", "b")
    assert 0 < apart.p_value <= 1


@pytest.mark.parametrize("sizes", [(3, 4), (3, 6), (6, 3), (4, 8), (8, 4), (4, 4)])
def test_different_kinds_are_significant_for_any_numbers_of_runs(sizes):
    """If pairs across kinds are not shifted, the power is 0 whenever the numbers of runs differ."""
    rng = np.random.default_rng(sizes)
    p = np.array([p_of_kinds(rng, sizes, (0.74, 0.60), (0.005, 0.005)) for _ in range(30)])
    assert np.mean(p <= 0.05) >= 0.95


@pytest.mark.parametrize(
    ("sizes", "spreads"),
    [((3, 6), s) for s in ((0.02, 0.02), (0.06, 0.01), (0.01, 0.06), (0.0, 0.0))]
    + [((4, 8), (0.06, 0.01)), ((5, 4), (0.01, 0.06))],
)
def test_equal_kinds_are_rarely_significant_for_any_spread(sizes, spreads):
    """Plain permutations reject 0.2 and more if the smaller kind varies more."""
    rng = np.random.default_rng([*sizes, round(1000 * spreads[0])])
    p = np.array([p_of_kinds(rng, sizes, (0.7, 0.7), spreads) for _ in range(150)])
    assert np.mean(p <= 0.05) <= 0.05 + 0.035  # The tolerance is two standard errors of 150 draws.


def test_kinds_without_any_spread_differ_or_not():
    level = np.full((7, 7), 0.4)
    level[:3, :3], level[3:, 3:] = 0.5, 0.6
    kinds = ["a"] * 3 + ["b"] * 4
    assert kind_difference(level, kinds, "a", "b").p_value <= 0.05
    level[3:, 3:] = 0.5
    assert kind_difference(level, kinds, "a", "b").p_value == 1


def test_many_runs_are_sampled(monkeypatch):
    monkeypatch.setattr("sae_geometry.comparisons.inference._SAMPLED", 999)
    kinds = ["a"] * 9 + ["b"] * 9
    matrix = simulated(np.random.default_rng(0), 18, 1, 1)
    found = kind_difference(matrix, kinds, "a", "b")
    assert (found.permutations, found.exact) == (1000, False)
    assert found.p_value >= 1e-3
    assert found == kind_difference(matrix, kinds, "a", "b")


@pytest.mark.parametrize(
    ("n", "m", "enough"),
    [(2, 2, "3 and 4"), (3, 3, "3 and 4"), (2, 3, "3 and 4"), (2, 6, "3 and 6"), (1, 4, "3 and 4")],
)
def test_too_few_runs_are_refused_with_what_it_takes(rng, n, m, enough):
    kinds = ["a"] * n + ["b"] * m
    found = kind_difference(simulated(rng, n + m, 1, 1), kinds, "a", "b")
    assert np.isnan(found.p_value)
    assert found.refusal is not None
    assert f"the test needs {enough}" in found.refusal
    assert "no test" in str(found)
    assert "nan" not in str(found)
    a, b = (int(x) for x in found.refusal.split("the test needs ")[1].removesuffix(" runs").split(" and "))
    many = kind_difference(simulated(rng, a + b, 1, 1), ["a"] * a + ["b"] * b, "a", "b")
    assert many.refusal is None


def test_wrong_use_is_refused(rng):
    with pytest.raises(ValueError, match="at least three runs; got 2"):
        interval_over_runs(np.ones((2, 2)))
    with pytest.raises(ValueError, match="finite value"):
        interval_over_runs(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="at least two latents; got 1"):
        interval_over_latents(np.array([0.5, np.nan]))
    for first, second in (("a", "a"), ("a", "c")):
        with pytest.raises(ValueError, match="kinds must differ"):
            kind_difference(np.ones((4, 4)), ["a", "a", "b", "b"], first, second)
