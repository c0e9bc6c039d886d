"""Tests of a device's peak rates and the share that the sweep reaches, with data sheets and a simulated GPU."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from simulated_gpu import OnCard, simulated_gpu

from sae_geometry.cost import doctor as diagnosis
from sae_geometry.cost import rates
from sae_geometry.cost.rates import CARDS, Card, Rates, known_card, measure_rates, roof_seconds
from sae_geometry.kernels import audit
from sae_geometry.kernels.screens import torch as screen_torch

SLOW = Card("Slow", float32=1e9, tf32=2e9, fp16=4e9, bandwidth=1e6)


def test_the_roof_is_arithmetic_or_memory_whichever_takes_longer() -> None:
    assert roof_seconds((1000, 2000, 500), "float32", SLOW) == 6.0  # 3,000 rows × 500 × 4 bytes at 10⁶ bytes per second
    assert roof_seconds((1000, 2000, 500), "fp16", SLOW) == 3.0  # half the bytes
    # 1.28e9 operations; reading takes 0.64 s
    assert roof_seconds((8000, 8000, 10), "float32", SLOW) == pytest.approx(1.28)
    assert roof_seconds((8000, 8000, 10), "tf32", SLOW) == pytest.approx(0.64)


def test_cards_are_known_by_the_drivers_name_and_no_other() -> None:
    for card in CARDS:
        assert known_card(card.name) is card
        assert card.fp16 >= card.tf32 >= card.float32 > 1e12
        assert card.bandwidth > 1e11
    names = {"NVIDIA L40S": "NVIDIA L40S", "NVIDIA L4": "NVIDIA L4", "NVIDIA A10": "NVIDIA A10", "NVIDIA A100X": None,
             "NVIDIA H100 80GB HBM3": "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-32GB": "Tesla V100-SXM2",
             "NVIDIA GeForce RTX 4090 Laptop GPU": None}  # fmt: skip
    for name, expected in names.items():
        found = known_card(name)
        assert (None if found is None else found.name) == expected, name


def test_rates_on_a_cpu_are_held_against_products_alone() -> None:
    found = measure_rates("cpu", ["cpu"], rows=600)
    assert found.card is None
    assert found.shape == (600, 600, 768)
    *alone, ours = found.lines
    assert "torch.mm alone" in [r.name for r in alone]
    limit = min(r.seconds for r in alone)
    assert all(r.over_product is None and r.of_roof is None for r in alone)
    assert ours.over_product is not None
    assert ours.over_product >= 0.99 * ours.seconds / max(r.seconds for r in alone)
    assert ours.over_product <= 1.01 * ours.seconds / limit
    for r in found.lines:
        assert r.operations == pytest.approx(2 * 600 * 600 * 768 / r.seconds)
    table = found.markdown().splitlines()
    assert "no data sheet" in table[0]
    assert [line.count("|") for line in table[2:]] == [6] * (2 + len(found.lines))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the machine report a GPU."""
    card = SimpleNamespace(
        name="NVIDIA H100 80GB HBM3", total_memory=80 << 30, major=9, minor=0, multi_processor_count=132
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(diagnosis, "choose_backend", lambda _: ("umap-learn", "0", "simulated"))
    monkeypatch.setattr(rates, "_enough_rows", lambda _: 256)
    for name in ("SAMPLED", "MOST_EDGES", "LAST"):  # The simulated GPU is slow.
        monkeypatch.setattr(audit, name, 4)
    monkeypatch.setattr(diagnosis, "_FUSED", ())  # The fused kernel needs real pointers.


@pytest.mark.usefixtures("gpu")
def test_a_doctor_on_a_gpu_runs_the_suite_there_and_measures_against_its_roof() -> None:
    with simulated_gpu():
        found = diagnosis.diagnose()
    checks = found.sections["checks"]
    assert found.is_right
    assert [checks[f"cuda, {name}"][:5] for name in ("torch", "fp16", "tf32")] == ["exact"] * 3
    assert found.sections["device"]["cuda"] == "NVIDIA H100 80GB HBM3, 80 GiB, compute 9.0"
    assert found.rates.card == "NVIDIA H100 80GB HBM3"
    names = [r.name for r in found.rates.lines]
    assert names[:3] == ["float32 product alone", "fp16 product alone", "tf32 product alone"]
    assert names[3:] == ["sweep, torch", "sweep, fp16", "sweep, tf32"]
    card = known_card("NVIDIA H100 80GB HBM3")
    assert card is not None
    for r, precision in zip(found.rates.lines, ["float32", "fp16", "tf32"] * 2, strict=True):
        assert r.of_roof == pytest.approx(roof_seconds((256, 256, 768), precision, card) / r.seconds)  # type: ignore[arg-type]
    assert found.verdict.startswith("Works, exact on the CPU and GPU. ")
    text = found.markdown()
    for part in ("roof from the data sheet of NVIDIA H100 80GB HBM3", "cuda, fp16: exact", "| sweep, tf32 | "):
        assert part in text


def test_the_verdict_says_what_to_do() -> None:
    def verdict(**changed: dict[str, str]) -> str:
        good = {"checks": {"sweep, cpu": "exact"}, "device": {"cuda": "none"}, "extras": {"dask": "installed"}}
        return diagnosis.Diagnosis({**good, **changed}, Rates("cpu", None, (1, 1, 1), ())).verdict

    assert verdict() == "Works, exact on the CPU. Nothing to do."
    missing = {"interactive": "pip install …", "dask": "installed"}
    assert verdict(extras=missing) == "Works, exact on the CPU. Optional: pip install 'sae-geometry[interactive]'."
    assert "install a build of PyTorch with CUDA" in verdict(device={"cuda": "unused: built without CUDA"})
    wrong = verdict(checks={"sweep, cpu": "exact", "cuda, fp16": "WRONG: rows"})
    assert wrong.startswith("Wrong results on this machine (cuda, fp16)")
    assert "into an issue" in wrong


@pytest.mark.usefixtures("gpu")
def test_a_doctor_on_a_gpu_that_multiplies_wrongly_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = screen_torch.block_product

    def wrong(x: torch.Tensor, y: torch.Tensor, precision: str, scratch: torch.Tensor | None = None) -> torch.Tensor:
        product = real(x, y, precision, scratch)  # type: ignore[arg-type]
        return product + 0.1 if isinstance(x, OnCard) and precision == "fp16" else product

    monkeypatch.setattr(screen_torch, "block_product", wrong)
    with simulated_gpu():
        found = diagnosis.diagnose()
    assert not found.is_right
    assert [k for k, v in found.sections["checks"].items() if v.startswith("WRONG")] == ["cuda, fp16"]
