"""Tests that no error exceeds ε, whatever the rows, and that near-ties are decided correctly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kernel_cases import SCREENS, assert_sweep, gaussian
from torch import Tensor

from sae_geometry.kernels.error_bounds import float32_error, gamma, row_norms
from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.loops import cpu as cpu_loops
from sae_geometry.kernels.screens.products import mm_product, onednn_product


def constant(n: int, d: int) -> Tensor:
    """Return terms of one sign and size that are not short binary fractions, so that rounding errors accumulate."""
    return torch.full((n, d), 1 / 3.0) * (1 + torch.arange(n)[:, None] / 7.0)


def cancelling(n: int, d: int) -> Tensor:
    """Return entries over eight orders of magnitude whose signs make the sums cancel."""
    g = torch.Generator().manual_seed(d)
    x = torch.randn(n, d, generator=g) * 10.0 ** torch.randint(-4, 5, (n, d), generator=g)
    x[:, d // 2 :] = -x[:, : d - d // 2].flip(1)
    return x


def tiny(n: int, d: int) -> Tensor:
    """Return rows whose products are below the smallest normal float32 number, which hardware may flush to zero."""
    return gaussian(n, d) * 1e-20


def subnormal(n: int, d: int) -> Tensor:
    """Return entries below the smallest normal float32 number."""
    return gaussian(n, d) * 1e-40


def huge(n: int, d: int) -> Tensor:
    """Return rows whose products are near the largest float32 number."""
    return gaussian(n, d) * 2.0**62


KINDS = (gaussian, constant, cancelling, tiny, subnormal, huge)


def products(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    scratch = torch.full((len(x) * len(y),), torch.nan)
    found = {
        "mm": mm_product(x, y, scratch).clone(),
        "loop": torch.tensor([[cpu_loops.float32_dot(p.numpy(), q.numpy()) for q in y] for p in x]),
        "one by one": torch.tensor([[np.cumsum((p * q).numpy())[-1] for q in y] for p in x]),
    }
    if torch.backends.mkldnn.is_available():
        found["oneDNN"] = onednn_product(x, y, scratch)
    return found


@pytest.mark.parametrize("d", [1, 63, 16384])
@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("right", KINDS)
def test_no_float32_product_errs_by_more_than_epsilon(left, right, d: int) -> None:
    if {left, right} == {huge, cancelling} or (left is right is huge and d == 1):
        pytest.skip("overflows float32, which a sweep refuses")
    x, y = left(6, d), right(5, d)
    rows, cols = torch.meshgrid(torch.arange(6), torch.arange(5), indexing="ij")
    exact = exact_dots(x, y, rows.flatten(), cols.flatten()).view(6, 5)
    epsilon = float32_error(row_norms(x), float(row_norms(y).max()), d)
    for name, product in products(x, y).items():
        assert bool(((product.double() - exact).abs() <= epsilon[:, None]).all()), name


def test_the_bound_is_not_trivial() -> None:
    # The sequential sum of 16,384 equal terms errs by a good share of what γ_d allows.
    x = constant(1, 16384)
    exact = exact_dots(x, x, torch.tensor([0]), torch.tensor([0]))
    error = (products(x, x)["one by one"].double() - exact).abs().item()
    assert error > 1e-3 * gamma(16384) * row_norms(x).item() ** 2


def test_norms_are_float64_norms_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = cancelling(50, 30)
    expected = x.double().norm(dim=1)
    torch.testing.assert_close(row_norms(x), expected, rtol=1e-15, atol=0)
    monkeypatch.setattr("sae_geometry.kernels.error_bounds._CHUNK_ELEMENTS", 100)
    torch.testing.assert_close(row_norms(x), expected, rtol=1e-15, atol=0)
    assert row_norms(x[:1]).shape == (1,)


def test_gamma_refuses_rows_that_float32_cannot_sum() -> None:
    with pytest.raises(ValueError, match="too wide"):
        gamma(1 << 23)


def ladder(n: int, d: int, step: int) -> tuple[Tensor, Tensor]:
    """Return one row and n columns whose exact scores differ by `step` units in the last place of one small entry."""
    x = gaussian(1, d)
    y = x.repeat(n, 1)
    bits = y[:, 0].view(torch.int32)
    y[:, 0] = (bits + step * torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(torch.int32)).view(
        torch.float32
    )
    return x, y


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("k", [1, 64])
def test_near_ties_inside_epsilon_are_swept_again_and_right(k: int, screen: str) -> None:
    x, y = ladder(200, 96, 1)
    found = assert_sweep(x, y, k, screen=screen, columns=False)
    assert found.report.rows_redone == 1
    both = torch.cat([x, y])
    assert assert_sweep(both, None, k, screen=screen).report.rows_redone == 201


@pytest.mark.parametrize("screen", ["cpu", "torch"])
def test_scores_further_apart_than_epsilon_are_certified_at_once(screen: str) -> None:
    x = torch.zeros(1, 8)
    x[0, 0] = 1.0
    epsilon = float(float32_error(row_norms(x), 1.0, 8)[0])
    y = torch.zeros(40, 8)
    y[:, 0] = 1.0 - torch.arange(40) * 4 * epsilon
    assert assert_sweep(x, y, 1, screen=screen, columns=False).report.rows_redone == 0
    y[:, 0] = 1.0 - torch.arange(40) * 0.2 * epsilon
    assert assert_sweep(x, y, 1, screen=screen, columns=False).report.rows_redone == 1


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("d", [1, 16384])
def test_the_narrowest_and_widest_rows(d: int, screen: str) -> None:
    for left in KINDS:
        assert_sweep(left(6, d), gaussian(5, d, 3) if left is huge else left(5, d), 2, screen=screen)


EVERY_SCREEN = (*SCREENS, "fp16", "tf32", "triton-fp16")


def uneven(n: int, d: int, seed: int) -> Tensor:
    """Return rows whose norms span thirty orders of magnitude in random order, so that ε varies as much."""
    g = torch.Generator().manual_seed(seed)
    return gaussian(n, d, seed) * 10.0 ** (torch.rand(n, 1, generator=g) * 30 - 28)


def collapsing(n: int, d: int, seed: int) -> Tensor:
    """Return large entries of opposite sign whose products with one another nearly vanish."""
    x = torch.zeros(n, d)
    x[:, 0], x[:, 1] = 1.0, -1.0
    y = 1e-3 * gaussian(n, d, seed)
    y[:, 1] = -y[:, 0] if seed % 2 else y[:, 0]
    return x + y


@pytest.mark.parametrize("screen", EVERY_SCREEN)
@pytest.mark.parametrize("rows", [uneven, collapsing])
def test_hostile_rows_are_decided_rightly_and_within_epsilon(rows, screen: str) -> None:
    if screen.startswith("triton"):
        pytest.importorskip("triton", reason="triton is not installed")
    a, b = rows(60, 24, 1), rows(70, 24, 2)
    for absolute in (True,) if screen.startswith("triton") else (False, True):  # The interpreter is slow.
        assert_sweep(a, b, 3, screen=screen, absolute=absolute, audit=True)  # The audit compares every score with ε.
    assert_sweep(a, None, 3, screen=screen, audit=True)
