"""Tests of cost estimates: counts are exact, times have the right order, and wrong use is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import sae_geometry as sg
from sae_geometry.cost.estimate import estimate, matching_bytes
from sae_geometry.cost.jobs import Verb
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels import sweep as sweep_module
from sae_geometry.kernels.sweep import plan_sweep, sweep
from sae_geometry.kernels.types import Task


def dictionary(n: int, d: int, seed: int, *, encoder: bool = False) -> Dictionary:
    """Return a dictionary whose latents come in families of two, so that its halves are matched."""
    drawn = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed))
    weight = drawn[0, torch.arange(n) // 2] + 0.3 * drawn[1]
    sides = {"encoder": weight.flip(1), "encoder_latent_axis": 0} if encoder else {}
    return Dictionary.from_decoder(weight, latent_axis=0, name=f"d{seed}", hook_point="h", model="m", **sides)


def test_operations_are_counted_by_pair_and_halved_within() -> None:
    a, b, c = dictionary(100, 16, 0), dictionary(200, 16, 1), dictionary(300, 16, 2)
    own, halves = 100**2 + 200**2, 2 * (50**2 + 100**2)
    assert estimate([a, b]).flops == 16 * (4 * 2 * 100 * 200 + own + halves)  # three turns
    # Greedy does not sweep the halves.
    assert estimate([a, b], matching="greedy").flops == 16 * (5 * 2 * 100 * 200 + own)
    three = estimate([a, b, c])
    assert three.n_sweeps == 24
    between, own = 100 * 200 + 100 * 300 + 200 * 300, 2 * (100**2 + 200**2 + 300**2)
    halves = 2 * 2 * (50**2 + 100**2 + 150**2)
    assert three.flops == 16 * (4 * 2 * between + own + halves)
    within = estimate([a, b], "within")
    assert within.n_sweeps == 10
    assert within.flops == 16 * 8 * (100**2 + 200**2)
    umap = estimate([a, b], "umap")
    assert umap.n_sweeps == 8
    assert umap.flops == 16 * (2 * (100**2 + 200**2) + 4 * 2 * 100 * 200)
    assert estimate([a], "umap").flops == 16 * 100**2, "one run has no partners across runs"
    assert "not counted  reading the inputs; the layout that UMAP optimizes" in str(umap)


QUESTIONS: dict[str, tuple[Verb, dict[str, Any], Callable[[list[Dictionary]], object]]] = {
    "nearest": ("compare", {}, lambda d: sg.compare(d[0], d[1])),
    "encoder": ("compare", {"on": "encoder"}, lambda d: sg.compare(d[0], d[1], on="encoder")),
    "both": ("compare", {"on": "both"}, lambda d: sg.compare(d[0], d[1], on="both")),
    "mutual": ("compare", {"matching": "mutual"}, lambda d: sg.compare(d[0], d[1], "mutual")),
    "greedy": ("compare", {"matching": "greedy"}, lambda d: sg.compare(d[0], d[1], "greedy", turns=0)),
    "optimal": ("compare", {"matching": "optimal"}, lambda d: sg.compare(d[0], d[1], "optimal", turns=0)),
    "match": ("match", {}, lambda d: sg.match(d[0], d[1]).record),
    "within": ("within", {}, lambda d: sg.within(d[0])),
    "seeds": ("seeds", {}, lambda d: sg.seeds(d)),
    "agreement": ("agreement", {}, lambda d: sg.agreement(d[0], d[1])),
    "span": ("span", {}, lambda d: sg.span(d[0], d[1])),
    "split": ("split", {"n_terms": 2}, lambda d: sg.split(d[0], d[1], n_terms=2)),
    "truth": ("truth", {}, lambda d: sg.truth(d[0], d[1])),
    "umap": ("umap", {"n_neighbors": 8}, lambda d: sg.umap(d[:2], 8, n_epochs=2).across()),
}
EXACT = {
    "nearest",
    "encoder",
    "both",
    "mutual",
    "within",
    "agreement",
}  # The number of sweeps of the other questions depends on the data.


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_counted_is_what_is_swept(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verb, how, ask = QUESTIONS[question]
    asked = {"within": 1, "seeds": 3}.get(verb, 2)
    dictionaries = [dictionary(n, 8, i, encoder=True) for i, n in enumerate((90, 110, 100))]
    told = estimate(dictionaries[:asked], verb, probe_seconds=0.02, **how)
    swept: list[float] = []
    real = sweep_module._task

    def spy(*args: Any) -> Task:
        task = real(*args)
        n, m, d = len(task.a), len(task.others), task.a.shape[1]
        swept.append(2 * n * m * d / (2 if task.within else 1))
        return task

    monkeypatch.setattr(sweep_module, "_task", spy)
    ask(dictionaries)
    if question in EXACT:
        assert told.flops == sum(swept)
        assert told.n_sweeps == len(swept)
    else:
        assert 0.2 * sum(swept) <= told.flops <= 2 * sum(swept), (told.flops / sum(swept), len(swept))


def test_states_of_a_run_are_not_swept() -> None:
    states = [dictionary(50, 8, i) for i in range(4)]
    told = estimate(states, "drift", probe_seconds=0.01)
    assert (told.n_sweeps, told.flops) == (0, 6 * 7 * 50 * 8)
    assert told.seconds > 0


def test_a_ceiling_is_planned_with() -> None:
    a, b = dictionary(3000, 16, 0), dictionary(3000, 16, 1)
    wide = estimate([a, b], probe_seconds=0.02)
    with sg.settings(memory="24MB"):
        told = estimate([a, b], probe_seconds=0.02)
    assert told.memory <= 24 << 20 < wide.memory


def test_a_ceiling_that_the_longest_lists_exceed_is_refused_beforehand() -> None:
    a, b = dictionary(3000, 8, 0), dictionary(2500, 8, 1)
    wanted = r"the memory limit is 4.0 MiB; raise it .*--memory 1[0-9]MB"
    with sg.settings(memory="4MB"), pytest.raises(ValueError, match=wanted):
        estimate([a, b], "match", probe_seconds=0.01)


def test_the_size_that_a_dry_run_names_is_that_of_the_command() -> None:
    a = dictionary(3000, 8, 0)
    for ask in (lambda: estimate(a, "umap", n_neighbors=5), lambda: sg.umap(a, n_neighbors=5)):
        with sg.settings(memory="1MB"), pytest.raises(ValueError, match=r"needs 4 MiB .*--memory 5MB"):
            ask()


def test_the_time_is_of_the_right_size() -> None:
    a, b = dictionary(5000, 256, 0), dictionary(6000, 256, 1)
    expected = estimate([a, b], probe_seconds=0.3)
    assert expected.screen == "cpu-float32"  # The product is too small for int8.
    took = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        sg.compare(a, b)
        took = min(took, time.perf_counter() - start)
    assert took / 8 < expected.seconds < took * 8  # Other processes may slow down a single run.
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
    with pytest.raises(ValueError, match='on="both" needs encoders'):
        estimate([dictionary(5, 4, 0), dictionary(5, 4, 1, encoder=True)], on="both")
    a = dictionary(10, 4, 0)
    with pytest.raises(ValueError, match="needs 2 or more"):
        estimate([a])
    with pytest.raises(ValueError, match="differ in width"):
        estimate([a, dictionary(10, 5, 1)])
    with pytest.raises(ValueError, match="match takes 2 dictionaries; got 3"):
        estimate([a, a, a], "match")
    with pytest.raises(ValueError, match="needs encoders"):
        estimate([a, a], "agreement")
    with pytest.raises(ValueError, match="verb must be one of compare, match"):
        estimate([a, a], "compair")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "m", "measured"), [(5_000, 5_000, 0.34e9), (100_000, 100_000, 1.36e9), (1_000_000, 512, 4.0e9)]
)
def test_the_memory_of_a_matching_is_what_was_measured(n, m, measured):
    """Compare with the measured peak memory of `sae-geometry match`, above its memory once the inputs were loaded."""
    assert 1 / 1.5 < matching_bytes(n, m) / measured < 1.5
