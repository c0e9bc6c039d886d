"""Tests of every question on a simulated GPU, whose answers must be the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
from simulated_gpu import simulated_gpu

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels import audit

QUESTIONS: dict[str, Callable[[list[Dictionary]], Any]] = {
    "nearest": lambda d: sg.compare(d[0], d[1], turns=2),
    "mutual": lambda d: sg.compare(d[0], d[1], "mutual"),
    "greedy": lambda d: sg.compare(d[0], d[1], "greedy", signed=False),
    "optimal": lambda d: sg.compare(d[0], d[1], "optimal", on="both", turns=2),
    "within": lambda d: sg.within(d[0]),
    "seeds": lambda d: sg.seeds(d[:2], matching="mutual"),
    "agreement": lambda d: sg.agreement(d[0], d[1]),
    "span": lambda d: sg.span(d[0], d[1]),
    "split": lambda d: sg.split(d[1], d[0]),
    "truth": lambda d: sg.truth(d[0], d[1]),
    "drift": lambda d: sg.drift([d[0], d[2]]),
    "umap": lambda d: sg.umap(d[:2], 5, n_epochs=5),
    "estimate": lambda d: sg.estimate(d, probe_seconds=0.1).flops,
}


def dictionaries(rng: np.random.Generator) -> list[Dictionary]:
    a, b = oracles.related_decoders(rng, 30, 24, 8, 15)
    rows = {"a": a, "b": b, "c": a + 0.1 * rng.standard_normal(a.shape)}
    return [
        Dictionary.from_decoder(
            x, latent_axis=0, encoder=x + 0.1 * rng.standard_normal(x.shape), encoder_latent_axis=0, name=name,
            hook_point="h", model="m",
        )
        for name, x in rows.items()
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _few_are_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the audit, which has most of the operations, each a tenth of a millisecond on a simulated GPU."""
    monkeypatch.setattr(audit, "SAMPLED", 4)
    monkeypatch.setattr(audit, "LAST", 2)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_the_cpus(question: str, rng: np.random.Generator) -> None:
    here, ask = dictionaries(rng), QUESTIONS[question]
    expected = ask(here)
    with simulated_gpu():
        there = [d.to("cuda") for d in here]
        assert there[0].directions.is_cuda
        found = ask(there)
        assert repr(found) == repr(expected)
        if isinstance(found, sg.Embedding):
            assert found.evidence == expected.evidence  # This compares every digit, not only the printed ones.
        if hasattr(found, "to_pandas"):
            assert found.to_pandas().equals(expected.to_pandas())


@pytest.mark.parametrize("question", ["nearest", "agreement", "span", "split", "truth", "drift"])
def test_dictionaries_may_be_on_different_devices(question: str, rng: np.random.Generator) -> None:
    here, ask = dictionaries(rng), QUESTIONS[question]
    expected = ask(here)
    with simulated_gpu():
        for on_card in (0, 1):
            assert repr(ask([d.to("cuda") if at == on_card else d for at, d in enumerate(here)])) == repr(expected)
