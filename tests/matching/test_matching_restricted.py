"""Tests of the restricted solver against scipy, with a list that grows between solves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sae_geometry.matching.restricted import Restricted

SLACK = 1e-14


def solve(problem):
    return list(problem.solve(SLACK))


def assert_complementary(problem, score, t):
    """Check that no pair exceeds its prices, matched pairs attain them, and unmatched prices are outside options."""
    mate, u, v = problem.mate, problem.u, problem.v
    assert (u[:, None] + v - score).min() >= -1e-12
    matched = np.flatnonzero(mate >= 0)
    np.testing.assert_array_equal(problem.owner[mate[matched]], matched)
    assert len(set(mate[matched].tolist())) == matched.size == (problem.owner >= 0).sum()
    np.testing.assert_array_equal(problem.w_mate[matched], score[matched, mate[matched]])
    assert np.abs(u[matched] + v[mate[matched]] - score[matched, mate[matched]]).max(initial=0) <= 1e-12
    if problem.column_option == 0:
        assert (v >= 0).all()
        assert np.abs(v[problem.owner < 0]).max(initial=0) <= 1e-12
    if t is not None:
        assert (u >= t).all()
        assert np.abs(u[mate < 0] - t).max(initial=0) <= 1e-12


@pytest.mark.parametrize("seed", range(60))
def test_optimal_after_every_addition(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    m = n if seed % 4 == 0 else n + int(rng.integers(0, 30))
    score = rng.integers(0, 4, (n, m)) / 4 if seed % 2 else rng.standard_normal((n, m))
    t = 0.3 if seed % 3 == 0 else None
    problem = Restricted(n, m, -np.inf if t is None else t, -np.inf if n == m and t is None else 0.0)
    listed = np.zeros((n, m), dtype=bool)
    listed[np.arange(n), np.arange(n)] = True
    for share in (0.2, 0.5, 1.0):
        listed |= rng.random((n, m)) <= share
        rows, cols = listed.nonzero()
        problem.add(rows, cols, score[rows, cols])
        assert problem.n_edges == listed.sum()
        solve(problem)
        restricted = np.where(listed, score, -1e3)
        gain = restricted if t is None else np.maximum(restricted - t, 0)
        expected = gain[linear_sum_assignment(gain, maximize=True)].sum()
        matched = np.flatnonzero(problem.mate >= 0)
        value = (problem.w_mate[matched] - (t or 0.0)).sum()
        assert value == pytest.approx(expected, abs=1e-9)
        assert_complementary(problem, np.where(listed, score, -np.inf), t)


def test_adding_the_same_pair_twice_adds_it_once():
    problem = Restricted(2, 3, -np.inf, 0.0)
    rows, cols = np.array([1, 0, 1]), np.array([2, 0, 2])
    assert problem.add(rows, cols, np.array([0.5, 0.25, 0.5])) == 2
    assert problem.add(rows, cols, np.array([0.5, 0.25, 0.5])) == 0
    assert problem.n_edges == 2
    np.testing.assert_array_equal(problem.best_listed(), [0.25, 0.5])


def test_a_row_that_cannot_be_matched_is_named():
    problem = Restricted(3, 3, -np.inf, -np.inf)
    problem.add(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 2]), np.array([0.9, 0.8, 0.7, 0.6]))
    with pytest.raises(ValueError, match="row 1 must be matched"):
        solve(problem)
