"""Tests of the screens for tensor cores, run on the CPU: bit-identical to float32, and errors within ε."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import assert_same, assert_sweep, gaussian, lattice, planted, sae_like

from sae_geometry.kernels.error_bounds import row_norms
from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.screens.low_precision import rounded, rounded_error, to_tf32
from sae_geometry.kernels.sweep import sweep

both = pytest.mark.parametrize("precision", ["fp16", "tf32"])


def test_tf32_keeps_ten_bits_ties_to_even() -> None:
    step = 2.0**-10
    x = torch.tensor([1.0, 1 + step / 2, 1 + 1.5 * step, 1 + 0.4 * step, 1 + 0.6 * step, -1 - 0.6 * step, 0.0, -0.0])
    assert to_tf32(x).tolist() == [1.0, 1.0, 1 + 2 * step, 1.0, 1 + step, -1 - step, 0.0, -0.0]
    many = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert bool(((to_tf32(many) - many).abs() <= 2.0**-11 * many.abs()).all())
    assert bool((to_tf32(many).view(torch.int32) & 0x1FFF == 0).all())


@both
@pytest.mark.parametrize("d", [1, 64, 768, 16384])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-6])
def test_rounding_and_its_product_stay_within_epsilon(precision: str, d: int, scale: float) -> None:
    x, y = gaussian(12, d, 1) * scale, gaussian(10, d, 2)
    p, q = rounded(x, precision), rounded(y, precision)  # type: ignore[arg-type]
    hat = p.values.double() / p.scale
    assert bool(((x.double() - hat).norm(dim=1) <= p.residual).all())
    rows, cols = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    exact = exact_dots(x, y, rows.flatten(), cols.flatten()).view(12, 10)
    product = (p.values.float() @ q.values.float().T) / (p.scale * q.scale)
    epsilon = rounded_error(p, q, row_norms(y), d)
    assert bool(((product.double() - exact).abs() <= epsilon[:, None]).all())


@both
def test_same_bits_as_float32(precision: str) -> None:
    for a, b in (sae_like(300, 400, 64), planted(120, 90, 20, seed=1), (lattice(80, 6), lattice(90, 6, 1))):
        for absolute in (False, True):
            for other in (None, b):
                options = {"absolute": absolute, "blocks": (64, 77)}
                left = sweep(a, other, 3, screen=precision, **options)  # type: ignore[arg-type]
                assert_same(left, sweep(a, other, 3, screen="cpu", **options))


@both
def test_against_the_definition_with_a_bias(precision: str) -> None:
    a, b = planted(50, 60, 12, seed=9)
    bias = 0.1 * torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = assert_sweep(a, b, 2, screen=precision, column_bias=bias, columns=False)
    assert found.report.screen == f"torch-{precision}"


@pytest.mark.usefixtures("unchecked")
def test_what_fp16_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit the fp16 screen"):
        sweep(gaussian(5, 2) * 1e4, screen="fp16")
