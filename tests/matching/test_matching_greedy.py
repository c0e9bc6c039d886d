"""Tests of greedy matchings against the naive sequence, ties included, and of mutual ones against their definition."""

from __future__ import annotations

import matching_cases
import numpy as np
import pytest
import torch

from sae_geometry.kernels.sweep import listing_sweep, sweep
from sae_geometry.matching import match
from sae_geometry.matching.greedy import greedy_partners, quick_partners


def assert_greedy(index):
    case = matching_cases.case(index)
    score = case.score
    result = match(case.a, case.b, "greedy", absolute=case.absolute)
    expected = matching_cases.sequential_greedy(score)
    np.testing.assert_array_equal(result.partner, expected, err_msg=case.name)
    matched = expected >= 0
    assert result.n_matched == matched.sum() == min(len(case.a), len(case.b))
    np.testing.assert_array_equal(result.score[matched], score[matched, expected[matched]])
    assert np.isnan(result.cosine[~matched]).all()


@pytest.mark.parametrize("first", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 8))])
def test_rounds_of_dominant_pairs_equal_the_sequence(first):
    for index in matching_cases.SMALL[first::8]:
        assert_greedy(index)


@pytest.mark.parametrize("index", matching_cases.LARGE)
def test_it_holds_for_many_latents(index):
    assert_greedy(index)


@pytest.mark.parametrize("k", [1, 2, 7, 64])
def test_any_list_length_to_start_from_gives_the_same(k):
    for index in (2, 3, 14, 35, 70, 77):
        case = matching_cases.case(index)
        nearest = sweep(case.a, case.b, k, absolute=case.absolute)
        partner = match(case.a, case.b, "greedy", absolute=case.absolute, nearest=nearest).partner
        np.testing.assert_array_equal(partner, matching_cases.sequential_greedy(case.score), err_msg=case.name)


def test_by_hand():
    # (0, 1) is best. Row 1 prefers the taken column and gets column 0; row 2 likes 0 as much, but lower rows go
    # first.
    a = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    b = torch.tensor([[0.0, 0.5, 0.0], [0.9, 0.6, 0.0], [0.0, 0.0, 1.0]])
    assert match(a, b, "greedy").partner.tolist() == [1, 0, 2]
    assert match(a, b, "mutual").partner.tolist() == [1, -1, -1]


def test_mutual_equals_its_definition():
    for index in matching_cases.SMALL[::4]:
        case = matching_cases.case(index)
        score = case.score
        best_col, best_row = score.argmax(axis=1), score.argmax(axis=0)  # numpy takes the first of equals too.
        expected = np.where(best_row[best_col] == np.arange(len(score)), best_col, -1)
        result = match(case.a, case.b, "mutual", absolute=case.absolute)
        np.testing.assert_array_equal(result.partner, expected, err_msg=case.name)
        assert result.n_matched == (expected >= 0).sum()


def test_mutual_pairs_are_greedy_pairs_and_greedy_is_no_better_than_optimal():
    for index in range(1, 60, 6):
        case = matching_cases.case(index)
        mutual, greedy, optimal = (match(case.a, case.b, m) for m in ("mutual", "greedy", "optimal"))
        chosen = mutual.partner >= 0
        np.testing.assert_array_equal(mutual.partner[chosen], greedy.partner[chosen])
        assert greedy.total <= optimal.total + 1e-9
        assert greedy.total >= 0.5 * optimal.total - 1e-9 or greedy.score.min() < 0


def test_asking_again_costs_less_than_two_sweeps_more(rng):
    a, b = rng.standard_normal((1500, 24)), rng.standard_normal((1500, 24))
    b[:900] = a[rng.permutation(1500)[:900]] + 0.3 * rng.standard_normal((900, 24))
    _, swept = greedy_partners(matching_cases.unit(a), matching_cases.unit(b))
    assert 1.0 <= swept / 1500**2 < 2.0


def test_quick_partners_matches_every_latent():
    for index in (5, 6, 14, 28, 35):
        case = matching_cases.case(index)
        partner = quick_partners(sweep(case.a, case.b, 2, absolute=case.absolute))
        used = partner[partner >= 0]
        assert len(set(used.tolist())) == used.size == min(len(case.a), len(case.b))


def test_progress_ends_at_one():
    seen = []
    match(torch.eye(40), torch.eye(40), "greedy", progress=seen.append)
    assert seen[-1].share == 1.0
    assert {s.stage for s in seen} == {"greedy"}


def test_a_finished_sweep_is_not_changed() -> None:
    """The matching starts from the lists that a comparison shows."""
    rng = np.random.default_rng(0)
    a, b = (torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((90, 3))).float(), dim=1) for _ in "ab")
    lists = listing_sweep(a, b, 64)
    before = lists.rows.index.clone(), lists.cols.index.clone()  # type: ignore[union-attr]
    for method in ("greedy", "optimal"):
        match(a, b, method, nearest=lists)
    assert torch.equal(lists.rows.index, before[0])
    assert torch.equal(lists.cols.index, before[1])  # type: ignore[union-attr]
