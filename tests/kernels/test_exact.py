"""Tests that every implementation of the score is bit-identical to `math.fsum` over exact products."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kernel_cases import gaussian

from sae_geometry.kernels.exact import exact_dots, torch_exact_dots


def pairs(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, cols = torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij")
    return rows.flatten(), cols.flatten()


def by_fsum(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
    products = (x.double()[rows] * y.double()[cols]).tolist()
    return torch.tensor([math.fsum(p) for p in products], dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 13, 64, 100, 767, 768, 16384])
def test_numba_torch_and_fsum_are_bit_identical(d: int) -> None:
    x, y = gaussian(7, d, 1), gaussian(9, d, 2)
    rows, cols = pairs(7, 9)
    expected = by_fsum(x, y, rows, cols)
    assert torch.equal(exact_dots(x, y, rows, cols), expected)
    assert torch.equal(torch_exact_dots(x, y, rows, cols), expected)
    assert torch.equal(exact_dots(y, x, cols, rows), expected)


@pytest.mark.parametrize("d", [2, 9, 64, 300])
def test_sums_that_cancel_to_almost_nothing(d: int) -> None:
    rng = np.random.default_rng(d)
    x = (rng.standard_normal((6, d)) * 10.0 ** rng.integers(-6, 6, (6, d))).astype(np.float32)
    y = (rng.standard_normal((6, d)) * 10.0 ** rng.integers(-6, 6, (6, d))).astype(np.float32)
    for i in range(6):  # Let the last term of each diagonal pair cancel the others as well as float32 can.
        rest = math.fsum(float(a) * float(b) for a, b in zip(x[i, :-1], y[i, :-1], strict=True))
        x[i, -1], y[i, -1] = -rest, 1.0
    u, v = torch.from_numpy(x), torch.from_numpy(y)
    rows, cols = pairs(6, 6)
    expected = by_fsum(u, v, rows, cols)
    assert torch.equal(exact_dots(u, v, rows, cols), expected)
    assert torch.equal(torch_exact_dots(u, v, rows, cols), expected)


def test_an_unrounded_sum_shows_in_the_last_bit() -> None:
    x = torch.tensor([[1.0, 2.0**-30, 2.0**-30]])
    y = torch.tensor([[1.0, 2.0**-23, 2.0**-23]])
    zero = torch.tensor([0])
    assert exact_dots(x, y, zero, zero).item() == 1.0 + 2.0**-52
    assert (x.double() * y.double()).sum().item() in (1.0, 1.0 + 2.0**-52)  # Plain float64 may lose both small terms.


@pytest.mark.parametrize("bad", [-1, 7])
def test_pairs_beyond_the_end_are_refused(bad: int) -> None:
    x, zero = gaussian(7, 3), torch.tensor([0])
    for rows, cols in ((zero, zero + bad), (zero + bad, zero)):
        with pytest.raises(IndexError):
            exact_dots(x, x, rows, cols)


def test_no_pairs_and_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = gaussian(7, 30, 1), gaussian(9, 30, 2)
    none = torch.empty(0, dtype=torch.int64)
    assert exact_dots(x, y, none, none).shape == torch_exact_dots(x, y, none, none).shape == (0,)
    rows, cols = pairs(7, 9)
    whole = torch_exact_dots(x, y, rows, cols)
    monkeypatch.setattr("sae_geometry.kernels.exact._CHUNK_ELEMENTS", 60)
    assert torch.equal(torch_exact_dots(x, y, rows, cols), whole)
