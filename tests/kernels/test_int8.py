"""Tests of the int8 screen: its error bound, its choice only if it pays, and detection of wrong hardware."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import assert_same, assert_sweep, gaussian, no_int8, sae_like
from torch import Tensor

from sae_geometry.kernels.error_bounds import row_norms
from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.screens import int8 as screen_int8
from sae_geometry.kernels.screens.quantize import (
    Quantized,
    Spread,
    hadamard_stages,
    int8_error,
    quantize,
    rotation_signs,
)
from sae_geometry.kernels.sweep import sweep

pytestmark = no_int8


def spiky(n: int, d: int) -> Tensor:
    """Return rows with one entry that carries most of the norm."""
    x = gaussian(n, d)
    x[torch.arange(n), torch.arange(n) % d] += 3.0
    return x


def flat(n: int, d: int) -> Tensor:
    """Return constant rows, which a Hadamard matrix without random signs would concentrate in one entry."""
    return torch.full((n, d), d**-0.5)


def huddled(n: int, m: int) -> tuple[Tensor, Tensor]:
    """Return rows so close together that int8 cannot tell the closest pairs apart."""
    x = gaussian(1, 64) + 0.03 * gaussian(n + m, 64, 5)
    x /= x.norm(dim=1, keepdim=True)
    return x[:n].clone(), x[n:].clone()


def empty_like_rows(n: int, d: int) -> Tensor:
    """Return zero rows, rows below the int8 resolution, and ordinary rows."""
    x = gaussian(n, d)
    x[::3] = 0.0
    x[1::3] *= 1e-35
    return x


def rotated(x: Tensor) -> Tensor:
    """Rotate by definition, in float64."""
    d, stages = x.shape[1], hadamard_stages(x.shape[1])
    z = torch.zeros(x.shape[0], int(stages[-1, 0]), dtype=torch.float64)
    z[:, :d] = x.double() * torch.from_numpy(rotation_signs(d))
    start = 0
    for stop, factor in stages.tolist():
        h = torch.ones(1, 1, dtype=torch.float64)
        while len(h) < int(stop) - start:
            h = torch.cat([torch.cat([h, h], dim=1), torch.cat([h, -h], dim=1)])
        z[:, start : int(stop)] = z[:, start : int(stop)] @ h.T * factor
        start = int(stop)
    return z


def spread(q: Quantized, x: Tensor) -> Spread:
    return Spread(q.residual, q.length, row_norms(x))


@pytest.mark.parametrize("d", [1, 15, 64, 255, 300, 768])
@pytest.mark.parametrize("rows", [gaussian, spiky, flat, empty_like_rows])
def test_the_measured_residual_bounds_the_distance_to_the_rotated_row(rows, d: int) -> None:
    x = rows(20, d)
    q = quantize(x, row_norms(x))
    hat = q.q.double() * q.scale.double()[:, None]
    distance = (rotated(x) - hat).norm(dim=1)
    assert bool((distance <= q.residual).all())
    assert bool((hat.norm(dim=1) <= q.length).all())


@pytest.mark.parametrize("d", [16, 100, 768])
@pytest.mark.parametrize("left", [gaussian, spiky, flat, empty_like_rows])
@pytest.mark.parametrize("right", [gaussian, spiky, flat])
def test_no_int8_score_errs_by_more_than_epsilon(left, right, d: int) -> None:
    x, y = left(30, d), right(25, d)
    p, q = quantize(x, row_norms(x)), quantize(y, row_norms(y))
    buffers = torch.empty(30 * 25, dtype=torch.int32), torch.empty(30 * 25)
    screened = screen_int8._scores(p, q, screen_int8.float32_bias(None), False, buffers)
    rows, cols = torch.meshgrid(torch.arange(30), torch.arange(25), indexing="ij")
    exact = exact_dots(x, y, rows.flatten(), cols.flatten()).view(30, 25)
    error = (screened.double() - exact).abs()
    assert bool((error <= int8_error(spread(p, x), spread(q, y), d)[:, None]).all())
    assert bool((error <= int8_error(spread(q, y), spread(p, x), d)[None, :]).all())


def test_rotating_keeps_a_spike_from_costing_the_whole_row() -> None:
    x = spiky(50, 768)
    x /= x.norm(dim=1, keepdim=True)
    spike = x.abs().amax(dim=1)
    unrotated = (spike / 127 / 12**0.5 * 768**0.5).mean()
    assert quantize(x, row_norms(x)).residual.mean() < 0.5 * unrotated


@pytest.mark.parametrize("d", [16, 17, 64, 100, 300, 768, 4096])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 40), (65, 63), (256, 2048)])
def test_the_integer_product_is_exact_at_its_extremes(n: int, m: int, d: int) -> None:
    width = int(hadamard_stages(d)[-1, 0])
    for left, right in ((127, 127), (-127, 127), (-127, -127)):
        x = torch.full((n, width), left, dtype=torch.int8)
        y = torch.full((m, width), right, dtype=torch.int8)
        assert bool((torch._int_mm(x, y.T) == left * right * width).all())


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("k", [1, 10])
def test_same_bits_as_float32_where_it_certifies_and_where_it_does_not(k: int, absolute: bool, within: bool) -> None:
    certified, hopeless = sae_like(900, 1100, 256), huddled(700, 1200)
    for a, b in (certified, hopeless):
        options = {"absolute": absolute, "blocks": (200, 300), "threads": 2}
        other = None if within else b
        assert_same(sweep(a, other, k, screen="int8", **options), sweep(a, other, k, screen="cpu", **options))
    assert sweep(*hopeless, k, screen="int8").report.rows_redone > 0  # The second sweep decided these rows.


def test_auto_takes_it_where_a_sample_certifies_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_int8, "_WORTH_IT", 1e6)
    monkeypatch.setattr(screen_int8, "int8_time", lambda: 0.3)
    taken = sweep(*sae_like(500, 600, 256)).report
    assert taken.screen == "cpu-int8"
    assert "certifies" in taken.why
    declined = sweep(*huddled(500, 700)).report
    assert declined.screen == "cpu-float32"
    assert "certify only" in declined.why
    tight = sweep(*sae_like(500, 600, 256), memory=300_000, blocks=(64, 64)).report
    assert (tight.screen, "memory" in tight.why) == ("cpu-float32", True)
    monkeypatch.setattr(screen_int8, "int8_time", lambda: 0.9)
    assert "0.90 times as long as float32" in sweep(*sae_like(500, 600, 256)).report.why


def test_a_small_product_is_not_worth_it() -> None:
    assert "small" in sweep(*sae_like(50, 60, 16)).report.why


def test_an_integer_product_that_saturates_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch._int_mm

    def saturating(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
        found = real(x, y).clamp(-32768, 32767)
        return found if out is None else out.copy_(found)

    monkeypatch.setattr(torch, "_int_mm", saturating)
    screen_int8.int8_time.cache_clear()
    try:
        assert screen_int8.int8_time() is None
        with pytest.raises(ValueError, match="no exact int8 product"):
            sweep(gaussian(30, 256), screen="int8")
    finally:
        screen_int8.int8_time.cache_clear()
    # This simulates hardware that is wrong in this shape only.
    monkeypatch.setattr(screen_int8, "int8_time", lambda: 0.3)
    with pytest.raises(ValueError, match="not exact for this shape"):
        sweep(flat(300, 256), screen="int8")


def test_every_option_with_int8_against_the_definition() -> None:
    a, b = sae_like(150, 170, 64)
    bias = 0.2 * torch.randn(170, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_sweep(a, b, 3, screen="int8", column_bias=bias, columns=False, blocks=(40, 50))
    assert_sweep(a, b, 3, screen="int8", absolute=True, column_bias=bias, columns=False)
    assert_sweep(a, None, 3, screen="int8", blocks=(40, 50), threads=2)
