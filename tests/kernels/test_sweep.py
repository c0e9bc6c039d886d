"""Tests that the sweep is bit-identical to the dense float64 definition for difficult shapes and ties."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from kernel_cases import (
    SCREENS,
    assert_best,
    assert_same,
    assert_sweep,
    dense_scores,
    gaussian,
    lattice,
    planted,
    sae_like,
)

from sae_geometry.kernels.screens.int8 import int8_time
from sae_geometry.kernels.sweep import MAX_K, sweep
from sae_geometry.kernels.types import ScreenName

HAS_TRITON = importlib.util.find_spec("triton") is not None
every_screen = pytest.mark.parametrize("screen", SCREENS)
SHAPES = [(1, 1, 3), (1, 64, 5), (63, 65, 8), (65, 63, 8), (64, 64, 16), (130, 257, 33), (257, 2, 4), (5, 40, 1)]


@every_screen
@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
@pytest.mark.parametrize("k", [1, 3, 64])
def test_ragged_shapes_both_directions(n: int, m: int, d: int, k: int, screen: str) -> None:
    assert_sweep(gaussian(n, d, 1), gaussian(m, d, 2), k, screen=screen)


@every_screen
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 3), (63, 8), (64, 1), (65, 8), (130, 16)])
def test_within_excludes_self_by_index(n: int, d: int, absolute: bool, screen: str) -> None:
    for k in (1, 5):
        assert_sweep(gaussian(n, d), None, k, absolute=absolute, screen=screen)
        found = assert_sweep(lattice(n, d), None, k, absolute=absolute, screen=screen)
        assert not (found.rows.index == torch.arange(n)[:, None]).any()


@every_screen
def test_a_thousand_rows_with_awkward_blocks(screen: str) -> None:
    a, b = sae_like(1000, 700, 12)
    score = dense_scores(a, b)
    for blocks in (None, (64, 64), (63, 65), (1000, 7)):
        found = sweep(a, b, 3, screen=screen, blocks=blocks, threads=2)
        assert_best(found.rows, score, 3)
        assert found.cols is not None
        assert_best(found.cols, score.T, 3)


@every_screen
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("blocks", [None, (1, 1), (7, 5), (8, 64)])
def test_ties_go_to_the_lower_index(absolute: bool, blocks: tuple[int, int] | None, screen: str) -> None:
    a, b = lattice(9, 6, 1), lattice(13, 6, 2)
    assert_sweep(a, b, 4, absolute=absolute, screen=screen, blocks=blocks, threads=2)
    assert_sweep(a, None, 4, absolute=absolute, screen=screen, blocks=blocks, threads=2)


@every_screen
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("k", [1, 9])
def test_one_direction_repeated(absolute: bool, k: int, screen: str) -> None:
    x = gaussian(1, 20).expand(70, 20).contiguous()
    assert_sweep(x, None, k, absolute=absolute, screen=screen)
    assert_sweep(x[:40], x, k, absolute=absolute, screen=screen)
    x[1::2] *= -1
    assert_sweep(x, None, k, absolute=absolute, screen=screen)
    assert_sweep(x[:40], x, k, absolute=absolute, screen=screen)


def test_thousands_of_duplicates_cost_one_row() -> None:
    x = gaussian(1, 32).expand(20_000, 32).contiguous()
    found = sweep(x, None, 2)
    assert found.rows.index[0].tolist() == [1, 2]
    assert found.rows.index[1].tolist() == [0, 2]
    assert bool((found.rows.index[2:] == torch.tensor([0, 1])).all())
    assert found.report.rows_redone == 20_000
    assert found.report.seconds < 30  # Scoring all pairs in float64 would take minutes.


def test_antiparallel_pairs_are_last_when_signed_and_first_when_absolute() -> None:
    a = torch.eye(4)
    b = torch.cat([-a, 0.5 * a])
    assert sweep(a, b).rows.index.flatten().tolist() == [4, 5, 6, 7]
    found = sweep(a, b, absolute=True)
    assert found.rows.index.flatten().tolist() == [0, 1, 2, 3]
    assert found.rows.score.flatten().tolist() == [1.0] * 4
    assert found.rows.cosine.flatten().tolist() == [-1.0] * 4


@every_screen
def test_zero_rows_have_cosine_zero(screen: str) -> None:
    a, b = gaussian(30, 9, 1), gaussian(40, 9, 2)
    a[[0, 7, 29]] = 0.0
    b[[3, 39]] = 0.0
    found = assert_sweep(a, b, 2, screen=screen)
    assert found.rows.index[7].tolist() == [0, 1]
    assert found.rows.score[7].tolist() == [0.0, 0.0]
    assert_sweep(a, None, 2, screen=screen)
    assert_sweep(torch.zeros(70, 9), None, 3, screen=screen)


@every_screen
@pytest.mark.parametrize("absolute", [False, True])
def test_a_column_bias_is_subtracted(absolute: bool, screen: str) -> None:
    a, b = planted(70, 90, 6, seed=3)
    b[50] = b[20]  # Equal rows with unequal bias are not tied.
    for scale in (1e-9, 0.3, 1e6):
        bias = scale * torch.randn(90, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert_sweep(a, b, 3, absolute=absolute, column_bias=bias, columns=False, screen=screen, blocks=(16, 32))


@every_screen
def test_rows_only(screen: str) -> None:
    a, b = planted(33, 47, 6, seed=1)
    assert_sweep(a, b, 2, columns=False, screen=screen, blocks=(8, 8), threads=2)


@every_screen
def test_the_sixty_four_best(screen: str) -> None:
    a, b = planted(70, 150, 10, seed=5)
    assert_sweep(a, b, MAX_K, screen=screen, blocks=(32, 16))
    assert_sweep(b, None, MAX_K, screen=screen, blocks=(32, 16))


@pytest.mark.parametrize("cases", [20, 200])
def test_cases_give_the_same_bits_from_every_screen_block_size_and_thread_count(cases: int) -> None:
    g = torch.Generator().manual_seed(7)
    screens: list[ScreenName] = ["cpu", "torch", "fp16", "tf32"]
    if int8_time() is not None:
        screens.append("int8")
    fused: tuple[ScreenName, ...] = ("triton", "triton-fp16", "triton-tf32")
    tied = compared = 0

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=g))

    for case in range(cases):
        n, m, d, k = draw(1, 90), draw(1, 90), draw(1, 40), draw(1, 8)
        a, b = planted(n, m, d, seed=case) if case % 2 else (lattice(n, d, case), lattice(m, d, case + 1000))
        options = {"absolute": bool(draw(0, 2))}
        other = None if draw(0, 3) == 0 else b
        first = sweep(a, other, k, screen="cpu", threads=1, **options)
        more = fused[case // 10 % 3 : case // 10 % 3 + 1] if HAS_TRITON and case % 10 == 1 else ()
        for screen in (*screens, *more):
            size = (draw(30, 90), 90) if screen in fused else (draw(1, 40), draw(1, 40))  # The interpreter is slow.
            assert_same(first, sweep(a, other, k, screen=screen, threads=draw(1, 3), blocks=size, **options))
            compared += 1
        tied += int((first.rows.score.diff(dim=1) == 0).any(dim=1).sum())
        if case % 10 == 0:
            score = dense_scores(a, a if other is None else b, absolute=options["absolute"])
            assert_best(first.rows, score, k, exclude_self=other is None)
    assert tied > 5 * cases, "the cases have too few ties for a meaningful test"
    assert compared >= cases * len(screens)


def test_permuting_rows_permutes_the_answer() -> None:
    a, b = sae_like(120, 150, 24)
    p = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    q = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    before, after = sweep(a, b, 3), sweep(a[p], b[q], 3)
    assert torch.equal(after.rows.score, before.rows.score[p])
    assert torch.equal(q[after.rows.index], before.rows.index[p])
    assert after.cols is not None
    assert before.cols is not None
    assert torch.equal(p[after.cols.index], before.cols.index[q])


def test_permuting_and_negating_coordinates_changes_no_partner() -> None:
    a, b = sae_like(120, 150, 24)
    flip = torch.where(torch.arange(24) % 3 == 0, -1.0, 1.0)
    before, after = sweep(a, b, 3), sweep(a.flip(1) * flip, b.flip(1) * flip, 3)
    assert torch.equal(after.rows.index, before.rows.index)
    # The sum is exact, so the order of its terms does not matter.
    assert torch.equal(after.rows.score, before.rows.score)


def test_rotating_both_sides_changes_scores_by_rounding_only() -> None:
    a, b = sae_like(120, 150, 24)
    q, _ = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    turned = [(x.double() @ q).float() for x in (a, b)]
    before, after = sweep(a, b), sweep(*turned)
    assert torch.equal(after.rows.index, before.rows.index)
    torch.testing.assert_close(after.rows.score, before.rows.score, rtol=0, atol=4e-7)


def test_against_itself_every_row_finds_itself() -> None:
    a = gaussian(100, 16)
    found = sweep(a, a.clone())
    assert found.rows.index.flatten().tolist() == list(range(100))
    torch.testing.assert_close(found.rows.score, torch.ones(100, 1, dtype=torch.float64), rtol=0, atol=1e-6)


def test_inputs_are_left_alone_whatever_their_layout() -> None:
    wide = gaussian(60, 40)
    wide[3] = wide[4]
    strided, before = wide[:, ::2], wide.clone()
    assert_sweep(strided, wide.T[:20].T, 2)
    assert torch.equal(wide, before)
    tracked = gaussian(10, 4).requires_grad_()
    assert not sweep(tracked, None).rows.score.requires_grad


@pytest.mark.usefixtures("unchecked")
@every_screen
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_by_row(bad: float, screen: str) -> None:
    a, b = gaussian(20, 4), gaussian(9000, 4)
    b[8999, 2] = bad
    with pytest.raises(ValueError, match="b has NaN or infinite entries, first in row 8999"):
        sweep(a, b, screen=screen)
    with pytest.raises(ValueError, match="a has NaN or infinite entries"):
        sweep(b, None, screen=screen)


@pytest.mark.usefixtures("unchecked")
def test_wrong_use_is_refused() -> None:
    a, b = gaussian(5, 4), gaussian(6, 4)
    bias = torch.zeros(6, dtype=torch.float64)
    refused = [
        ("k must be in", {"k": 0}),
        ("k must be in", {"k": MAX_K + 1}),
        ("same width", {"b": gaussian(6, 3)}),
        ("must be float32", {"b": b.double()}),
        ("nonempty", {"b": b[:0]}),
        ("nonempty", {"b": b[0]}),
        ("columns=False", {"column_bias": bias}),
        ("finite float64", {"column_bias": bias[:5], "columns": False}),
        ("finite float64", {"column_bias": bias.float(), "columns": False}),
        ("finite float64", {"column_bias": bias - torch.inf, "columns": False}),
        ("not symmetric", {"b": None, "column_bias": bias, "columns": False}),
        ("overflow float32", {"b": b * 1e38}),
        ("overflow float32", {"column_bias": bias + 1e38, "columns": False}),
        ("memory limit", {"memory": 1000}),
    ]
    for message, options in refused:
        with pytest.raises(ValueError, match=message):
            sweep(a, **{"b": b, **options})  # type: ignore[arg-type]


def test_the_report_says_what_was_run() -> None:
    found = sweep(gaussian(20, 4), gaussian(30, 4), 2, screen="torch", blocks=(8, 8), threads=1)
    report = found.report
    assert (report.n_rows, report.n_cols, report.d_in, report.k) == (20, 30, 4, 2)
    assert (report.screen, report.why, report.device) == ("torch-float32", "asked for", "cpu")
    assert report.blocks == (8, 8)
    assert 0 < report.epsilon < 1e-5
    assert "on the CPU" in sweep(gaussian(20, 4)).report.why
