"""Tests of the optimal matching against scipy's dense solver, and of its certificate against the dense matrix."""

from __future__ import annotations

import itertools

import matching_cases
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sae_geometry.kernels.sweep import listing_sweep, sweep
from sae_geometry.matching import match, verify


def assert_optimal(a, b, score, absolute, result):
    n, m = score.shape
    rows, cols = linear_sum_assignment(score, maximize=True)
    used = result.partner[result.partner >= 0]
    assert len(set(used.tolist())) == used.size == min(n, m) == result.n_matched
    assert result.total == pytest.approx(score[rows, cols].sum(), abs=1e-9, rel=0)
    own = np.flatnonzero(result.partner >= 0)
    np.testing.assert_array_equal(result.score[own], score[own, result.partner[own]])
    certificate = result.certificate
    assert (score - certificate.row_duals[:, None] - certificate.column_duals).max() <= 1e-12
    assert certificate.certified
    assert certificate.stopped == "optimal"
    if n > m:
        assert certificate.row_duals.min() >= 0
    if n < m:
        assert certificate.column_duals.min() >= 0
    assert certificate.value <= certificate.bound
    assert verify(a, b, result).gap <= 1e-12 * max(1, min(n, m))


def assert_case_optimal(index):
    case = matching_cases.case(index)
    result = match(case.a, case.b, "optimal", absolute=case.absolute)
    assert_optimal(case.a, case.b, case.score, case.absolute, result)


@pytest.mark.parametrize("first", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 8))])
def test_value_permutation_and_duals_equal_the_dense_solvers(first):
    for index in matching_cases.SMALL[first::8]:
        assert_case_optimal(index)


@pytest.mark.parametrize("index", matching_cases.LARGE)
def test_it_holds_for_many_latents(index):
    assert_case_optimal(index)


@pytest.mark.parametrize("absolute", [False, True])
def test_demo_pairs(demo, absolute):
    for x, y in itertools.combinations(("local-seed0", "local-seed1", "local-narrow-seed0", "e2e-seed0"), 2):
        a, b = demo[x].directions, demo[y].directions
        result = match(a, b, "optimal", absolute=absolute)
        assert_optimal(a, b, matching_cases.dense_scores(a, b, absolute), absolute, result)


def test_the_cases_cover_what_they_say():
    names = [matching_cases.case(i) for i in range(matching_cases.N_CASES)]
    shapes = [(len(c.a), len(c.b)) for c in names]
    assert (1, 1) in shapes or any(1 in s for s in shapes)
    assert max(max(s) for s in shapes) == 2000
    assert {np.sign(n - m) for n, m in shapes} == {-1, 0, 1}
    assert {c.name.split(":")[1] for c in names} == {f.__name__[1:] for f in matching_cases.FAMILIES}
    assert {c.absolute for c in names} == {True, False}


def outside_option_optimum(score, t):
    """Return max Σ (S − t)⁺ over matchings: an unmatched row is worth 0, so pairs below t never pay."""
    gain = np.maximum(score - t, 0.0)
    rows, cols = linear_sum_assignment(gain, maximize=True)
    return gain[rows, cols].sum()


@pytest.mark.parametrize(("first", "t"), [(0, -0.5), (1, 0.0), (2, 0.3), (3, 0.7), (4, 1.5)])
def test_min_similarity_leaves_out_what_is_worth_leaving_out(first, t):
    for index in range(first, matching_cases.N_CASES, 23):
        case = matching_cases.case(index)
        if max(len(case.a), len(case.b)) > 200:
            continue
        score = case.score
        result = match(case.a, case.b, "optimal", absolute=case.absolute, min_similarity=t)
        matched = result.partner >= 0
        used = result.partner[matched]
        assert len(set(used.tolist())) == used.size
        assert (result.score[matched] >= t).all()
        certificate = result.certificate
        assert certificate.value == pytest.approx(outside_option_optimum(score, t), abs=1e-9, rel=0)
        assert certificate.value == pytest.approx(result.total - t * used.size, abs=1e-9, rel=0)
        assert certificate.certified
        assert certificate.row_duals.min() >= t
        assert certificate.column_duals.min() >= 0
        assert (score - certificate.row_duals[:, None] - certificate.column_duals).max() <= 1e-12
        verify(case.a, case.b, result)


def test_min_similarity_is_not_a_cut_afterwards():
    # The full matching, .8 + .8, survives a cut at .75 and is worth .05 + .05; the pair of .9 alone is worth .15.
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[0.9, 0.8], [0.8, 0.1]])
    assert match(a, b, "optimal").partner.tolist() == [1, 0]
    score = matching_cases.dense_scores(a, b, False)
    np.testing.assert_allclose(score, [[0.9, 0.8], [0.8, 0.1]], atol=1e-6)
    kept = match(a, b, "optimal", min_similarity=0.75)
    assert kept.partner.tolist() == [0, -1]
    assert kept.certificate.value == pytest.approx(0.15)
    assert outside_option_optimum(score, 0.75) == pytest.approx(kept.certificate.value)


def test_the_default_matches_every_latent_even_at_negative_similarity():
    a = torch.tensor([[1.0, 0.0]])
    b = torch.tensor([[-1.0, 0.0]])
    assert match(a, b, "optimal").total == -1.0
    assert match(a, b, "optimal", absolute=True).total == 1.0
    assert match(a, b, "optimal", min_similarity=0.0).partner.tolist() == [-1]


@pytest.mark.parametrize(("noise", "most"), [(0.0, 16), (1e-2, 10)])  # 22 and 14 rounds if only rows are swept
def test_many_alike_rows_do_not_take_many_rounds(rng, noise, most):
    raw_a, raw_b = rng.standard_normal((900, 24)), rng.standard_normal((900, 24))
    raw_a[:300] = raw_a[0] + noise * rng.standard_normal((300, 24))
    a, b = matching_cases.unit(raw_a), matching_cases.unit(raw_b)
    result = match(a, b, "optimal")
    assert_optimal(a, b, matching_cases.dense_scores(a, b, False), False, result)
    assert result.certificate.rounds <= most


def test_turning_the_sides_turns_the_answer():
    case = matching_cases.case(1)
    forth = match(case.a, case.b, "optimal")
    back = match(case.b, case.a, "optimal")
    assert forth.total == pytest.approx(back.total, abs=1e-9)


def test_the_answer_is_the_same_every_time_and_for_any_number_of_threads(monkeypatch):
    case = matching_cases.case(232)
    assert len(case.a) > 300
    first = match(case.a, case.b, "optimal", absolute=case.absolute)
    for threads in (1, 2):
        monkeypatch.setattr("sae_geometry.kernels.sweep.cpu_threads", lambda threads=threads: threads)
        again = match(case.a, case.b, "optimal", absolute=case.absolute)
        np.testing.assert_array_equal(first.partner, again.partner)
        np.testing.assert_array_equal(first.certificate.column_duals, again.certificate.column_duals)


def test_a_finished_sweep_is_reused(monkeypatch):
    import sae_geometry.matching.optimal as module

    case = matching_cases.case(203)
    lists = sweep(case.a, case.b, 32)
    asked = []
    monkeypatch.setattr(
        module, "listing_sweep", lambda *args, **how: asked.append(args[2]) or listing_sweep(*args, **how)
    )
    result = match(case.a, case.b, "optimal", nearest=lists)
    assert 64 not in asked  # Few latents would be listed at this length.
    assert result.certificate.certified
    assert match(case.b, case.a, "optimal").certificate.certified
    assert 64 in asked


def test_wrong_use_says_what_is_wrong(unchecked):
    a, b = torch.eye(3), torch.eye(3)
    with pytest.raises(ValueError, match="one of mutual, greedy, optimal; got 'hungarian'"):
        match(a, b, "hungarian")
    with pytest.raises(ValueError, match="apply to 'optimal' only"):
        match(a, b, "greedy", min_similarity=0.5)
    with pytest.raises(ValueError, match="finite"):
        match(a, b, "optimal", min_similarity=float("nan"))
    with pytest.raises(ValueError, match="negative"):
        match(a, b, "optimal", max_gap=-1.0)
    with pytest.raises(ValueError, match="two-sided"):
        match(a, b, "greedy", nearest=sweep(a, b, columns=False))
    with pytest.raises(ValueError, match="2 rows against 3"):
        match(a, b, "greedy", nearest=sweep(a[:2], b))
    with pytest.raises(ValueError, match="absolute=True"):
        match(a, -b, "greedy", absolute=True, nearest=sweep(a, -b))
    with pytest.raises(ValueError, match="not a sweep of a and b"):
        match(a, b, "mutual", nearest=sweep(a, -b))
