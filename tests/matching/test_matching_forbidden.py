"""Tests of what an optimal matching loses without one of its pairs, against solving it again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import dense_cosines, unit
from scipy.optimize import linear_sum_assignment

from sae_geometry.matching import loss_if_forbidden, match
from sae_geometry.matching.forbidden import _best_but


def best_total(scores: np.ndarray, least: float | None) -> float:
    if least is not None:
        worth = np.maximum(scores - least, 0.0)
        rows, cols = linear_sum_assignment(worth, maximize=True)
        return float(worth[rows, cols].sum())
    rows, cols = linear_sum_assignment(scores, maximize=True)
    return float(scores[rows, cols].sum())


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("n", "m", "least"), [(30, 30, None), (20, 35, None), (35, 20, None), (30, 25, 0.2)])
def test_the_loss_is_never_more_than_solving_again_without_the_pair_shows(rng, n, m, least, absolute):
    a = unit(rng.standard_normal((n, 10)))
    b = unit(rng.standard_normal((m, 10)))
    b[:12] = unit(a[:12] + 0.1 * rng.standard_normal((12, 10)))
    x, y = torch.from_numpy(a).float(), torch.from_numpy(b).float()
    made = match(x, y, "optimal", absolute=absolute, min_similarity=least)
    loss = loss_if_forbidden(x, y, made)
    scores = dense_cosines(x.numpy(), y.numpy())
    scores = np.abs(scores) if absolute else scores
    whole, true = best_total(scores, least), np.full(n, np.nan)
    for i in np.flatnonzero(made.partner >= 0):
        without = scores.copy()
        without[i, made.partner[i]] = -5.0
        true[i] = whole - best_total(without, least)
    np.testing.assert_array_equal(np.isnan(loss), np.isnan(true))
    known = ~np.isnan(true)
    assert (loss[known] <= true[known] + 1e-9).all()
    clear = np.flatnonzero(known)[true[known] > 0.2]
    assert len(clear) >= 5
    assert loss[clear].mean() > 0.5 * true[clear].mean()  # The bound must not be trivial.


@pytest.mark.parametrize("absolute", [False, True])
def test_the_best_other_partner_excludes_only_the_own_one(rng, absolute):
    """The partner need not be the best at the prices of a matching that was stopped early."""
    a, b = unit(rng.standard_normal((40, 6))), unit(rng.standard_normal((25, 6)))
    price, partner = rng.uniform(0, 0.3, 25), rng.integers(0, 25, 40)
    worth = dense_cosines(a, b)
    worth = (np.abs(worth) if absolute else worth) - price
    partner[:20] = worth.argmax(axis=1)[:20]
    found = _best_but(torch.from_numpy(a), torch.from_numpy(b), price, partner, absolute)
    worth[np.arange(40), partner] = -np.inf
    np.testing.assert_allclose(found, worth.max(axis=1), atol=1e-6)


def test_equal_rows_can_change_places_for_nothing():
    x = torch.eye(4)
    x = torch.cat([x, x[:1]])
    loss = loss_if_forbidden(x, x, match(x, x, "optimal"))
    assert loss[[0, 4]] == pytest.approx([0, 0])
    assert (loss[1:4] > 0.5).all()


def test_only_an_optimal_matching_has_prices():
    x = torch.eye(3)
    with pytest.raises(ValueError, match="needs an optimal matching"):
        loss_if_forbidden(x, x, match(x, x, "greedy"))
