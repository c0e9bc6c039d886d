"""Shapes in signatures are enforced while the tests run: jaxtyping annotations are checked by beartype."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported anywhere: its kernels run on the CPU here

import hypothesis
import jaxtyping
import matplotlib as mpl
import numpy as np
import pytest
import torch

jaxtyping.install_import_hook("sae_geometry", "beartype.beartype")

import oracles

from sae_geometry.dictionary import Dictionary

mpl.use("Agg")
hypothesis.settings.register_profile("ci", derandomize=True)  # a red run there is a change's doing, not the dice's
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def toy_pair(rng: np.random.Generator) -> tuple[Dictionary, Dictionary]:
    """Two dictionaries of 60 and 47 latents in 12 dimensions that share thirty directions up to noise."""
    a, b = oracles.related_decoders(rng, n=60, m=47, d=12, shared=30)
    return (
        Dictionary.from_decoder(a, latent_axis=0, name="a", hook_point="h", model="m"),
        Dictionary.from_decoder(b, latent_axis=0, name="b", hook_point="h", model="m"),
    )


@pytest.fixture(scope="session")
def demo() -> dict[str, Dictionary]:
    """The demo dictionaries by short name, alive latents only."""
    from sae_geometry.sources import load

    names = ("local-seed0", "local-seed1", "local-narrow-seed0", "e2e-seed0", "e2e-seed1")
    return {name: load(f"demo:{name}") for name in names}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As a user runs it: annotations are not enforced, so that our own message for a wrong value is what comes."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


# Ten seconds or more each, and about something that cheaper tests cover in part. `make test-all` runs them.
SLOW = (
    "tests/sources/test_mutations.py",
    "tests/reproductions/test_online.py::test_the_whole_paper_interrupted",
    "tests/kernels/test_running.py::test_peak_memory_of_forty_thousand_squared",
    "tests/kernels/test_int8.py::test_the_integer_product_is_exact_at_its_extremes",
    "tests/io/test_atomic_folder.py::test_seeds_killed_at_twenty_random_moments",
    "tests/cli/test_cli.py::test_doctor_checks_exactness",
    "tests/cost/test_rates.py::test_a_doctor_on_a_gpu",
    "tests/embedding/test_cross_run.py::test_more_runs_than_letters",
    "tests/embedding/test_embedding.py::test_a_picture_of_very_many_runs",
    "tests/comparisons/test_seeds.py::test_figures_for_many_runs",
    "tests/test_docs.py::test_a_notebook_runs",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
