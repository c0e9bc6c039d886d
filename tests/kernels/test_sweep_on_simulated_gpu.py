"""Tests of the GPU code on a simulated GPU: bit-identical and audited, whatever TF32 is set to."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from kernel_cases import assert_same, gaussian, lattice, planted, sae_like
from simulated_gpu import CARD, OnCard, simulated_gpu

from sae_geometry.kernels.audit import AuditError
from sae_geometry.kernels.screens import torch as screen_torch
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Best, Sweep


def on_cpu(found: Sweep) -> Sweep:
    def moved(best: Best | None) -> Best | None:
        return None if best is None else Best(best.score.cpu(), best.cosine.cpu(), best.index.cpu())

    rows = moved(found.rows)
    assert rows is not None
    return Sweep(rows, moved(found.cols), found.report)


def test_the_simulated_gpu_is_as_strict_as_a_real_one() -> None:
    x = gaussian(20, 768)
    with simulated_gpu():
        y = x.to("cuda")
        assert (y.device, y.is_cuda, y[:3].device, (y + 1).device) == (CARD, True, CARD, CARD)
        assert y.cpu().device.type == "cpu"
        assert torch.zeros(3, device=y.device).is_cuda
        for mixed in (lambda: y + x, lambda: torch.cat([y, x]), lambda: y @ x.T, lambda: y.gather(1, y.long().cpu())):
            with pytest.raises(RuntimeError, match="on one device"):
                mixed()
        with pytest.raises(TypeError, match="can't convert"):
            y.numpy()
        with pytest.raises(RuntimeError, match="rounded to fp16"):
            y.half() @ y.half().T
        error = float(((y @ y.T).cpu() - x @ x.T).abs().max())
        assert error > 1e-5  # The error shows that TF32 is on.


@pytest.mark.parametrize("screen", ["auto", "torch", "fp16", "tf32"])
def test_same_bits_as_on_the_cpu_and_audited_unasked(screen: str) -> None:
    bias = 0.2 * torch.randn(70, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for a, b in (sae_like(80, 110, 64), planted(60, 70, 5, seed=2), (lattice(40, 6), lattice(70, 6, 1))):
        cases = [(b, {}), (None, {"absolute": True})]
        if len(b) == len(bias):
            cases.append((b, {"column_bias": bias, "columns": False}))
        for other, options in cases:
            expected = sweep(a, other, 3, screen="cpu", **options)
            with simulated_gpu():
                there = {k: v.to("cuda") if isinstance(v, torch.Tensor) else v for k, v in options.items()}
                y = None if other is None else other.to("cuda")
                found = sweep(a.to("cuda"), y, 3, screen=screen, blocks=(64, 50), **there)
                assert isinstance(found.rows.index, OnCard)
                found = on_cpu(found)
            assert_same(expected, found)
            assert found.report.device == "cuda:0"
            assert "recomputed in float64" in (found.report.audit or "")
            assert found.report.why == ("tensors are on cuda:0" if screen == "auto" else "asked for")


def test_a_product_in_tf32_that_should_be_float32_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sae_like(300, 400, 256)
    monkeypatch.setattr(screen_torch, "full_precision", nullcontext)
    with simulated_gpu(), pytest.raises(AuditError, match="more than ε"):
        sweep(a.to("cuda"), b.to("cuda"))


@pytest.mark.parametrize("screen", ["cpu", "int8"])
def test_the_cpus_screens_are_refused_there(screen: str) -> None:
    with simulated_gpu(), pytest.raises(ValueError, match="needs tensors on the CPU; these are on cuda:0"):
        sweep(gaussian(20, 4).to("cuda"), screen=screen)
