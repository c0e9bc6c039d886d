"""Compares our means with the arithmetic of the end-to-end paper, rewritten from its definition, to 1e-6.

In its script the decoder is [d, n], its columns are divided by their norms, and the whole cosine matrix is formed in
float32. Within a dictionary the diagonal is −∞. The result is the mean over rows of their maxima.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import sae_geometry as sg

PAIRS = [("local-seed0", "local-seed1"), ("e2e-seed0", "local-seed0"), ("e2e-seed0", "e2e-seed1")]


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return cosines [n, m] from decoders [d, n] and [d, m]."""
    return torch.mm(
        torch.nn.functional.normalize(first, p=2, dim=0).T, torch.nn.functional.normalize(second, p=2, dim=0)
    )


def within_by_the_script(decoder: Tensor) -> float:
    matrix = cosines(decoder, decoder).fill_diagonal_(float("-inf"))
    return float(matrix.max(dim=1).values.mean())


def across_by_the_script(first: Tensor, second: Tensor) -> float:
    return float(cosines(first, second).max(dim=1).values.mean())


def raw_decoder(d: sg.Dictionary) -> Tensor:
    """Return the decoder [d, n] as a checkpoint stores it, with its original norms."""
    return (d.directions * d.decoder_norms[:, None]).T.contiguous()


@pytest.mark.parametrize("name", ["local-seed0", "local-narrow-seed0", "e2e-seed1"])
def test_within_a_demo_dictionary(demo, name):
    assert sg.within(demo[name]).mmcs == pytest.approx(within_by_the_script(raw_decoder(demo[name])), abs=1e-6)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_across_demo_dictionaries_both_ways(demo, a, b):
    x, y = raw_decoder(demo[a]), raw_decoder(demo[b])
    c = sg.compare(demo[a], demo[b], turns=0)
    assert c.a_to_b.mmcs == pytest.approx(across_by_the_script(x, y), abs=1e-6)
    assert c.b_to_a.mmcs == pytest.approx(across_by_the_script(y, x), abs=1e-6)


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 10))])
def test_random_pairs_of_many_shapes(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 80))
    n, m = (int(v) for v in rng.integers(2, 400, size=2))
    first = torch.from_numpy((rng.standard_normal((d, n)) * rng.uniform(0.01, 50, n)).astype(np.float32))
    second = torch.from_numpy((rng.standard_normal((d, m)) * rng.uniform(0.01, 50, m)).astype(np.float32))
    k = min(n, m) // 3
    second[:, :k] = first[:, :k] + 0.3 * second[:, :k] / second[:, :k].norm(dim=0) * first[:, :k].norm(dim=0)
    a, b = (sg.Dictionary.from_decoder(w, latent_axis=1, hook_point="h", model="m") for w in (first, second))
    c = sg.compare(a, b, turns=0)
    assert c.a_to_b.mmcs == pytest.approx(across_by_the_script(first, second), abs=1e-6)
    assert c.b_to_a.mmcs == pytest.approx(across_by_the_script(second, first), abs=1e-6)
    assert sg.within(a).mmcs == pytest.approx(within_by_the_script(first), abs=1e-6)


def test_this_test_can_fail(demo):
    """The mistakes that it should catch (no self-exclusion, wrong direction) move the mean by far more than 1e-6."""
    x, y = raw_decoder(demo["local-seed0"]), raw_decoder(demo["local-seed1"])
    assert abs(float(cosines(x, x).max(dim=1).values.mean()) - within_by_the_script(x)) > 0.1
    assert abs(across_by_the_script(x, y) - across_by_the_script(y, x)) > 1e-3
