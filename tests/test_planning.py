"""What a question will cost: counts are exact, time is of the right size, and wrong use is refused."""

from __future__ import annotations

import time

import pytest
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.sweep import plan_sweep, sweep
from sae_geometry.planning import estimate


def dictionary(n: int, d: int, seed: int) -> Dictionary:
    weight = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Dictionary.from_decoder(weight, latent_axis=0, name=f"d{seed}")


def test_operations_are_counted_by_pair_and_halved_within() -> None:
    a, b, c = dictionary(100, 16, 0), dictionary(200, 16, 1), dictionary(300, 16, 2)
    assert estimate([a, b]).flops == 2 * 100 * 200 * 16
    three = estimate([a, b, c])
    assert three.n_sweeps == 3
    assert three.flops == 2 * 16 * (100 * 200 + 100 * 300 + 200 * 300)
    within = estimate([a, b], "within")
    assert within.n_sweeps == 2
    assert within.flops == 16 * (100**2 + 200**2)
    umap = estimate([a, b], "umap")
    assert umap.n_sweeps == 1
    assert umap.flops == 16 * 300**2
    assert "UMAP" in str(umap)
    assert "not counted" not in str(within)


def test_the_time_is_of_the_right_size() -> None:
    a, b = dictionary(5000, 256, 0), dictionary(6000, 256, 1)
    expected = estimate([a, b], probe_seconds=0.3)
    assert expected.screen == "cpu-float32"  # too small for int8
    start = time.perf_counter()
    sweep(a.directions, b.directions)
    took = time.perf_counter() - start
    assert took / 8 < expected.seconds < took * 8  # other processes may take the machine in between
    assert expected.probe_seconds < 20


def test_the_plan_says_what_the_sweep_then_does() -> None:
    a, b = dictionary(900, 32, 0).directions, dictionary(800, 32, 1).directions
    for screen in ("auto", "cpu", "torch"):
        plan, report = plan_sweep(a, b, 2, screen=screen, threads=1), sweep(a, b, 2, screen=screen, threads=1).report
        assert (plan.screen, plan.why, plan.blocks, plan.threads) == (
            report.screen,
            report.why,
            report.blocks,
            report.threads,
        )
        assert 0 < plan.memory <= 256 * 2**20


@pytest.mark.usefixtures("unchecked")
def test_wrong_use_is_refused() -> None:
    a = dictionary(10, 4, 0)
    with pytest.raises(ValueError, match="needs 2 or more"):
        estimate([a])
    with pytest.raises(ValueError, match="differ in width"):
        estimate([a, dictionary(10, 5, 1)])
