"""Tests of the decision path: certified rows must be right even if the screen errs by as much as its ε allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import assert_best, dense_scores, gaussian, lattice, planted
from torch import Tensor

from sae_geometry.kernels.duplicates import first_equal, rank_among_equals
from sae_geometry.kernels.fallback import _rounded_down, redo
from sae_geometry.kernels.rescore import decide
from sae_geometry.kernels.screens.cpu import shortlist_of
from sae_geometry.kernels.types import Best, Scoring, Shortlist


def hostile_shortlist(score: Tensor, k: int, width: int, epsilon: float, claimed: float) -> Shortlist:
    """Return the worst possible order: screened scores that lower the k best by ε and raise all others by ε."""
    screened = score + epsilon
    screened.scatter_(1, score.topk(k, dim=1).indices, -2 * epsilon, reduce="add")
    values, indices = screened.float().topk(min(width, score.shape[1]), dim=1)
    return shortlist_of(values, indices, torch.full((len(score),), claimed, dtype=torch.float64))


def decided(a: Tensor, b: Tensor, k: int, width: int, epsilon: float, claimed: float) -> tuple[Best, Tensor, Tensor]:
    score = torch.from_numpy(dense_scores(a, b))
    best, certified = decide(a, b, hostile_shortlist(score, k, width, epsilon, claimed), k, Scoring())
    return best, certified, score


def wrong_rows(best: Best, score: Tensor) -> Tensor:
    order = score.argsort(dim=1, descending=True, stable=True)[:, : best.index.shape[1]]
    return (best.index != order).any(dim=1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2, 0.1])
def test_certified_rows_are_right_against_the_worst_screen(seed: int, epsilon: float) -> None:
    a, b = gaussian(60, 12, seed), gaussian(80, 12, seed + 100)
    for k in (1, 4):
        best, certified, score = decided(a, b, k, k + 3, epsilon, claimed=epsilon * 1.001 + 1e-7)
        assert not (wrong_rows(best, score) & certified).any()
        failed = (~certified).nonzero().flatten()
        assert_best(redo(a, b, failed, best, Scoring()) if len(failed) else best, score.numpy(), k)


def test_an_understated_epsilon_would_certify_wrong_rows() -> None:
    # The test above can fail: the same screen with a claimed ε of a tenth certifies wrong rows.
    slipped = 0
    for seed in range(20):
        a, b = gaussian(60, 12, seed), gaussian(80, 12, seed + 100)
        best, certified, score = decided(a, b, 1, 4, epsilon=0.1, claimed=0.01)
        slipped += int((wrong_rows(best, score) & certified).sum())
    assert slipped > 0


def test_a_row_is_not_certified_where_one_left_out_may_tie() -> None:
    """The listed column is the later of two equal ones."""
    a, b = torch.eye(1, 2), torch.eye(1, 2).repeat(2, 1)
    one = torch.ones(1, dtype=torch.float64)
    for beyond, certain in ((1.0, False), (np.nextafter(1.0, 0.0), True)):
        listed = Shortlist(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.int64), 0 * one, beyond * one)
        assert decide(a, b, listed, 1, Scoring())[1].tolist() == [certain]


@pytest.mark.parametrize("absolute", [False, True])
def test_redo_of_every_row_is_the_whole_answer(absolute: bool) -> None:
    for seed in range(8):
        a, b = planted(50, 70, 5, seed)
        for exclude_self, other in ((False, b), (True, a)):
            nothing = Best(
                torch.full((50, 3), -torch.inf, dtype=torch.float64),
                torch.full((50, 3), torch.nan, dtype=torch.float64),
                torch.full((50, 3), -1),
            )
            found = redo(a, other, torch.arange(50), nothing, Scoring(absolute, None, exclude_self))
            assert_best(found, dense_scores(a, other, absolute=absolute), 3, exclude_self)


def test_redo_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_geometry.kernels.fallback._ROWS", 7)
    monkeypatch.setattr("sae_geometry.kernels.fallback._CHUNK_ELEMENTS", 50)
    monkeypatch.setattr("sae_geometry.kernels.duplicates._CHUNK_ELEMENTS", 50)
    monkeypatch.setattr("sae_geometry.kernels.rescore._CHUNK_ENTRIES", 10)
    test_redo_of_every_row_is_the_whole_answer(True)
    test_certified_rows_are_right_against_the_worst_screen(1, 1e-2)


def test_equal_rows_are_found_and_ranked() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 2.0], [-0.0, 1.0], [-1.0, -2.0], [1.0, 2.0]])
    assert first_equal(x).tolist() == [0, 1, 0, 1, 4, 0]
    assert first_equal(x, up_to_sign=True).tolist() == [0, 1, 0, 1, 0, 0]
    extra = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert first_equal(x, extra).tolist() == [0, 1, 2, 1, 4, 0]
    assert rank_among_equals(first_equal(x, up_to_sign=True)).tolist() == [0, 0, 1, 1, 2, 3]


def test_rows_whose_hashes_collide_are_not_called_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_geometry.kernels.duplicates._hash", lambda x, w: torch.zeros(len(x), dtype=torch.int64))
    x = lattice(50, 3)
    first = first_equal(x)
    assert torch.equal(x[first], x)
    assert first_equal(torch.cat([x[:1], x[:1]])).tolist() == [0, 0]


def test_a_floor_is_the_largest_float32_that_is_not_above_it(rng):
    """A floor that is too high would hide candidates, while one that is too low only costs time."""
    x = torch.from_numpy(np.concatenate([rng.uniform(-1, 1, 2000), [0.5, -0.5, 1.0, 0.1, -0.1]]))
    found = _rounded_down(x)
    assert (found.double() <= x).all()
    assert (torch.nextafter(found, torch.tensor(torch.inf)).double() > x).all()
