"""Tests that certificates reject spoiled matchings, and stay valid when the solver stops early."""

from __future__ import annotations

import gc
import math
import signal
import threading
import weakref
from dataclasses import replace

import matching_cases
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.matching import match, optimal, verify
from sae_geometry.matching.bound import Unlisted, gap_of, outside_options
from sae_geometry.matching.pairs import partner_cosines


@pytest.fixture
def hard(rng):
    """Return a 300 × 300 case that one solve over lists of 32 does not settle, and its dense optimum."""
    a = matching_cases.unit(np.eye(1, 12) + 0.1 * rng.standard_normal((300, 12)))
    b = matching_cases.unit(np.eye(1, 12) + rng.random((300, 1)) * rng.standard_normal((300, 12)))
    score = matching_cases.dense_scores(a, b, False)
    rows, cols = linear_sum_assignment(score, maximize=True)
    return a, b, float(score[rows, cols].sum())


def spoiled(a, b, result, partner):
    """Return the same certificate with another matching and its true cosines."""
    return replace(result, partner=partner, cosine=partner_cosines(a, b, partner))


def test_two_partners_swapped_are_refused(hard):
    a, b, _ = hard
    result = match(a, b, "optimal")
    verify(a, b, result)
    score = matching_cases.dense_scores(a, b, False)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(20):
        i, j = rng.choice(300, 2, replace=False)
        partner = result.partner.copy()
        partner[[i, j]] = partner[[j, i]]
        if score[np.arange(300), partner].sum() >= result.total - 1e-10:
            continue  # This swap is as good, so nothing is spoiled.
        refused += 1
        with pytest.raises(ValueError, match="the prices leave a gap"):
            verify(a, b, spoiled(a, b, result, partner))
    assert refused >= 15


def test_every_other_spoiling_is_refused(hard):
    a, b, _ = hard
    result = match(a, b, "optimal")
    partner = result.partner.copy()
    partner[0] = partner[1]
    with pytest.raises(ValueError, match=f"column {partner[1]} is matched 2 times"):
        verify(a, b, spoiled(a, b, result, partner))
    partner = result.partner.copy()
    partner[3] = -1
    with pytest.raises(ValueError, match="has 299 pairs, but a complete"):
        verify(a, b, spoiled(a, b, result, partner))
    partner[3] = 300
    with pytest.raises(ValueError, match="must lie in 0…299"):
        verify(a, b, replace(result, partner=partner))
    cosine = result.cosine.copy()
    cosine[5] = np.nextafter(cosine[5], 2)
    with pytest.raises(ValueError, match="row 5 is reported with cosine"):
        verify(a, b, replace(result, cosine=cosine))
    u = result.certificate.row_duals.copy()
    u[7] -= 1e-6
    with pytest.raises(ValueError, match="of row 7 is below"):
        verify(a, b, replace(result, certificate=replace(result.certificate, row_duals=u)))
    v = result.certificate.column_duals.copy()
    v[9] += 0.1
    with pytest.raises(ValueError, match="the prices leave a gap"):
        verify(a, b, replace(result, certificate=replace(result.certificate, column_duals=v)))
    with pytest.raises(ValueError, match="has a certificate to verify"):
        verify(a, b, match(a, b, "greedy"))
    kept = match(a, b, "optimal", min_similarity=0.9)
    poor = np.flatnonzero(kept.partner < 0)
    free = np.setdiff1d(np.arange(300), kept.partner)
    assert poor.size
    partner = kept.partner.copy()
    partner[poor[0]] = free[0]
    with pytest.raises(ValueError, match="below min_similarity"):
        verify(a, b, spoiled(a, b, kept, partner))


def test_negative_prices_where_columns_may_stay_free_are_refused():
    case = matching_cases.case(2)
    assert len(case.a) < len(case.b)
    result = match(case.a, case.b, "optimal", absolute=case.absolute)
    v = result.certificate.column_duals - 1e-3
    u = result.certificate.row_duals + 1e-3
    with pytest.raises(ValueError, match="prices must be at least"):
        verify(case.a, case.b, replace(result, certificate=replace(result.certificate, column_duals=v, row_duals=u)))


def test_any_prices_bound_every_matching(rng):
    # By weak duality, random prices never give a bound below the dense optimum.
    for n, m, t in [(6, 6, None), (5, 8, None), (8, 5, None), (6, 7, 0.2), (1, 1, None)]:
        for _ in range(50):
            score = rng.standard_normal((n, m))
            options = outside_options(n, m, t)
            v = rng.standard_normal(m)
            if options[1] > -math.inf:
                v = np.abs(v)
            upper = (score - v).max(axis=1)
            gain = score if t is None else np.maximum(score - t, 0)
            rows, cols = linear_sum_assignment(gain, maximize=True)
            assert gap_of(np.full(n, np.nan), upper, v, options).bound >= gain[rows, cols].sum()


def test_slack_pays_for_rounding():
    # At prices of 1e8 each score loses eight digits; the bound must still cover the optimum, 3 × 0.1.
    score = np.full(3, 0.1)
    v = np.full(3, 1e8)
    upper = score - v
    assert upper.sum() + v.sum() != pytest.approx(0.3, abs=1e-12)
    gap = gap_of(score, upper, v, outside_options(3, 3, None))
    assert gap.bound >= 0.3
    assert gap.slack > 1e-9


def test_unlisted_ceilings_stay_valid_as_prices_move(rng):
    score = rng.standard_normal((20, 15))
    v = rng.random(15)
    unlisted = Unlisted(np.sort(score - v, axis=1)[:, -4], v)
    hidden = np.argsort(score - v, axis=1)[:, :-3]  # all but the three best of each row
    for _ in range(200):
        v = v + rng.standard_normal(15) * (rng.random(15) < 0.2)
        left = (np.take_along_axis(score, hidden, 1) - v[hidden]).max(axis=1)
        assert (unlisted.at(v) >= left - 1e-12).all()
        move = rng.integers(3)
        if move == 0:
            rows = np.flatnonzero(rng.random(20) < 0.3)
            unlisted.rows_swept(rows, left[rows], v)
        elif move == 1 and unlisted.fallen(v).size:
            cols = unlisted.fallen(v)
            best = (score[:, cols] - v[cols]).max(axis=1)
            unlisted.columns_swept(cols, best, v)
            assert not unlisted.fallen(v).size


def test_max_gap_stops_early_with_a_bound_that_holds(hard):
    a, b, best = hard
    short = listing_sweep(a, b, 16)  # With longer lists the first solution would be optimal.
    exact = match(a, b, "optimal", nearest=short)
    assert exact.certificate.stopped == "optimal"
    assert exact.certificate.rounds > 1
    result = match(a, b, "optimal", max_gap=0.2, nearest=short)
    certificate = result.certificate
    assert certificate.stopped == "max_gap"
    assert certificate.rounds < exact.certificate.rounds
    assert 1e-12 < certificate.relative_gap <= 0.2
    assert not certificate.certified
    assert result.total <= best + 1e-9 <= certificate.bound + 1e-9
    assert verify(a, b, result).gap <= certificate.gap + 1e-12


def test_a_spent_time_budget_still_gives_a_matching_and_a_bound(hard):
    a, b, best = hard
    for shape in (slice(None), slice(0, 200)):
        result = match(a, b[shape], "optimal", time_budget=0.0)
        certificate = result.certificate
        assert certificate.stopped == "time_budget"
        assert result.n_matched == len(b[shape])
        assert result.total <= certificate.bound
        assert verify(a, b[shape], result).gap <= certificate.gap + 1e-12
    assert match(a, b, "optimal", time_budget=0.0).total <= best + 1e-9


@pytest.mark.parametrize(("stage", "t"), [("solve", None), ("certify", None), ("solve", 0.5), ("certify", 0.5)])
def test_ctrl_c_at_any_stage_returns_the_best_so_far(hard, stage, t):
    a, b, best = hard
    pressed = []

    def press(step):
        if step.stage == stage and not pressed:
            pressed.append(step)
            raise KeyboardInterrupt

    result = match(a, b, "optimal", progress=press, min_similarity=t)
    assert pressed
    assert result.certificate.stopped == "interrupted"
    assert not result.certificate.certified
    gap = verify(a, b, result)
    assert gap.value <= gap.bound
    if t is None:
        assert result.n_matched == 300
        assert result.total <= best + 1e-9 <= result.certificate.bound + 1e-9


def test_ctrl_c_before_the_first_matching_is_raised():
    def press(step):
        assert step.stage == "candidates"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        match(torch.eye(5), torch.eye(5), "optimal", progress=press)


def test_the_lists_of_the_first_sweep_are_freed_before_it_is_solved(hard, monkeypatch):
    swept, alive = [], []
    solve = optimal._Run._solve

    def listing(*args, **how):
        found = listing_sweep(*args, **how)
        swept.append(weakref.ref(found))
        return found

    def solving(run):
        gc.collect()
        alive.append(swept[0]() is not None)
        solve(run)

    monkeypatch.setattr(optimal, "listing_sweep", listing)
    monkeypatch.setattr(optimal._Run, "_solve", solving)
    a, b, best = hard
    assert match(a, b, "optimal").total == pytest.approx(best)
    assert not any(alive)
    assert alive


@pytest.mark.usefixtures("ctrl_c")
def test_a_real_signal_at_any_moment(rng):
    a = matching_cases.unit(np.eye(1, 12) + 0.05 * rng.standard_normal((700, 12)))
    b = matching_cases.unit(np.eye(1, 12) + rng.random((700, 1)) * rng.standard_normal((700, 12)))
    whole = match(a, b, "optimal").certificate.seconds
    ended = []
    for share in np.linspace(0.1, 1.0, 10):
        result = None
        timer = threading.Timer(share * whole, signal.raise_signal, (signal.SIGINT,))
        try:
            timer.start()
            result = match(a, b, "optimal")
            timer.join()
        except KeyboardInterrupt:  # The signal came before there was a matching, or after the solver returned.
            timer.join()
        if result is not None:
            assert verify(a, b, result).gap <= result.certificate.gap + 1e-9
            ended.append(result.certificate.stopped)
    assert "interrupted" in ended


def test_progress_shows_the_gap_falling(hard):
    a, b, _ = hard
    seen = []
    match(a, b, "optimal", progress=seen.append)
    gaps = [step.gap for step in seen]
    assert gaps[0] == math.inf
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-2
    assert {step.stage for step in seen} == {"candidates", "solve", "certify"}
    assert all(0 <= step.share <= 1 for step in seen)
