"""Difficult inputs for a sweep, and the comparison of its result with the dense definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sae_geometry.kernels import reference
from sae_geometry.kernels.screens.int8 import int8_time
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Best, Sweep

no_int8 = pytest.mark.skipif(int8_time() is None, reason="this build of PyTorch has no exact int8 product")
SCREENS = ("cpu", "torch", pytest.param("int8", marks=no_int8))


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    """Return random unit rows."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True)


def lattice(n: int, d: int, seed: int = 0) -> Tensor:
    """Return small integers: every product is exact in any precision, and ties are frequent."""
    return torch.randint(-2, 3, (n, d), generator=torch.Generator().manual_seed(seed)).float()


def sae_like(n: int, m: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return two clustered dictionaries with a common mean that share 60% of their directions up to noise."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(max(2, max(n, m) // 8), d, generator=g)
    base = torch.randn(max(n, m), d, generator=g) + centers[torch.arange(max(n, m)) % len(centers)]
    base += 0.5 * torch.randn(d, generator=g)
    a, b = base[:n].clone(), base[:m].clone()
    shared = int(0.6 * m)
    b[:shared] += 0.3 * torch.randn(shared, d, generator=g)
    b[shared:] = torch.randn(m - shared, d, generator=g) + 0.5
    b = b[torch.randperm(m, generator=g)]
    return a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)


def planted(n: int, m: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random rows with planted duplicates, negatives, near-duplicates and zero rows, within and across sides."""
    g = torch.Generator().manual_seed(seed)
    a, b = gaussian(n, d, 2 * seed), gaussian(m, d, 2 * seed + 1)
    for x, y in ((a, b), (b, a)):
        for _ in range(max(1, len(x) // 6)):
            i, j = (int(torch.randint(len(x), (1,), generator=g)) for _ in range(2))
            o = int(torch.randint(len(y), (1,), generator=g))
            kind = int(torch.randint(5, (1,), generator=g))
            if kind == 0:
                x[i] = x[j]
            elif kind == 1:
                x[i] = -x[j]
            elif kind == 2:
                x[i] = y[o]
            elif kind == 3:
                x[i] = x[j]
                x[i, 0] = torch.nextafter(x[i, 0], torch.tensor(2.0))
            else:
                x[i] = 0.0
    return a, b


def dense_scores(a: Tensor, b: Tensor, *, absolute: bool = False, column_bias: Tensor | None = None) -> np.ndarray:
    """Return the score matrix by definition."""
    score = reference.exact_cosines(a, b)
    score = np.abs(score) if absolute else score
    return score if column_bias is None else score - column_bias.numpy()


def assert_best(found: Best, score: np.ndarray, k: int, exclude_self: bool = False) -> None:
    """Check that `found` is bit-identical to the definition on this dense score matrix."""
    values, indices = reference.best(score, k, exclude_self)
    np.testing.assert_array_equal(found.index.numpy(), indices)
    np.testing.assert_array_equal(found.score.numpy(), values)
    missing = indices < 0
    assert np.isnan(found.cosine.numpy()[missing]).all()
    assert not np.isnan(found.cosine.numpy()[~missing]).any()


def assert_sweep(a: Tensor, b: Tensor | None, k: int, **options: Any) -> Sweep:
    """Sweep, compare both sides with the definition, and return the sweep."""
    absolute, bias = options.get("absolute", False), options.get("column_bias")
    found = sweep(a, b, k, **options)
    score = dense_scores(a, a if b is None else b, absolute=absolute, column_bias=bias)
    assert_best(found.rows, score, k, exclude_self=b is None)
    if b is None or not options.get("columns", True):
        assert found.cols is None
    else:
        assert found.cols is not None
        assert_best(found.cols, score.T, k)
    return found


def assert_same(left: Sweep, right: Sweep) -> None:
    """Check that two sweeps are bit-identical."""
    for x, y in ((left.rows, right.rows), (left.cols, right.cols)):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert torch.equal(x.index, y.index)
            assert torch.equal(x.score, y.score)
            assert torch.equal(x.cosine.nan_to_num(7.0), y.cosine.nan_to_num(7.0))
