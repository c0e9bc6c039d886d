"""Shared fixtures, the list of slow tests, and shape checks: beartype checks jaxtyping annotations during the tests."""

from __future__ import annotations

import gc
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ["TRITON_INTERPRET"] = "1"  # Set this before triton is imported, so that its kernels run on the CPU.
if "PYTEST_XDIST_WORKER" in os.environ:  # One core per worker: threads that wait for a busy core would spin.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import filelock
import hypothesis
import jaxtyping
import matplotlib as mpl
import numpy as np
import pytest
import torch
from numba.core.dispatcher import Dispatcher

_annotated = jaxtyping.jaxtyped
_SHAPE = re.compile(r"\b(?:Bool|Float|Int)\d*\[")


def _jaxtyped(**how: Any) -> Callable[[Any], Any]:
    """Check only annotations with array shapes, which mypy cannot check; checking all would cost seconds per process.

    Functions inside functions stay unchecked: decorating them takes milliseconds for every call of the outer function.
    """

    def decorate(x: Any) -> Any:
        shaped = any(_SHAPE.search(str(kind)) for kind in getattr(x, "__annotations__", {}).values())
        return _annotated(x, **how) if shaped and "<locals>" not in x.__qualname__ else x

    return decorate


jaxtyping.jaxtyped = _jaxtyped  # The import hook looks the decorator up by this name.
jaxtyping.install_import_hook("sae_geometry", "beartype.beartype")

import oracles
import typer.testing

from sae_geometry.dictionary import Dictionary

mpl.use("Agg")
typer.testing._get_command = cache(typer.testing._get_command)  # Build the command tree once, not on every invocation.
# Derandomize, so that a failure in CI comes from the change and not from chance.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


_compile = Dispatcher.compile


@cache
def _compiler(function: str) -> filelock.FileLock:
    return filelock.FileLock(Path(tempfile.gettempdir()) / f"compiling-{os.getuid()}" / function)


def _compile_once(self: Dispatcher, signature: Any) -> Any:
    """Compile a function in one worker at a time; the others find it in numba's cache."""
    function = re.sub("[<>]", "", f"{self.py_func.__module__}.{self.py_func.__qualname__}")
    with _compiler(function):
        return _compile(self, signature)


if "PYTEST_XDIST_WORKER" in os.environ:
    Path(tempfile.gettempdir(), f"compiling-{os.getuid()}").mkdir(exist_ok=True)
    Dispatcher.compile = _compile_once


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def toy_pair(rng: np.random.Generator) -> tuple[Dictionary, Dictionary]:
    """Return two dictionaries of 60 and 47 latents in 12 dimensions that share 30 directions up to noise."""
    a, b = oracles.related_decoders(rng, n=60, m=47, d=12, shared=30)
    return (
        Dictionary.from_decoder(a, latent_axis=0, name="a", hook_point="h", model="m"),
        Dictionary.from_decoder(b, latent_axis=0, name="b", hook_point="h", model="m"),
    )


@pytest.fixture(scope="session")
def demo() -> dict[str, Dictionary]:
    """Return the demo dictionaries by short name, with alive latents only."""
    from sae_geometry.sources import load

    names = ("local-seed0", "local-seed1", "local-narrow-seed0", "e2e-seed0", "e2e-seed1")
    return {name: load(f"demo:{name}") for name in names}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turn annotation checks off, as for a user, so that the package's own error message is raised."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Make SIGINT raise KeyboardInterrupt here and in child processes; shells ignore it in background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save blank figures under the usual names, because drawing takes seconds and is tested elsewhere."""
    from matplotlib.figure import Figure

    from sae_geometry import plots

    for name in (name for name in plots.__all__ if name.endswith("_figure") or name == "figure_of"):
        if name != "save_figure":
            monkeypatch.setattr(plots, name, lambda *_, **__: Figure(figsize=(1, 1)))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


# Each takes ten seconds or more, or repeats a cheaper test on another case. `make test-all` runs them.
SLOW = (
    "tests/sources/test_mutations.py",
    "tests/sources/test_fuzz.py::test_nothing_wrong_ends_in_a_crash_a_hang_or_a_traceback[40]",
    "tests/kernels/test_triton_compiled.py::test_kernels_compiled_for[80]",
    "tests/kernels/test_triton_compiled.py::test_kernels_compiled_for[90]",
    "tests/kernels/test_triton_compiled.py::test_kernels_compiled_for[100]",
    *(
        f"tests/matching/test_matching_{method}.py::test_it_holds_for_many_latents[{index}]"
        for method in ("greedy", "optimal")
        for index in (0, 58, 87, 116, 174, 203, 232, 290)
    ),
    "tests/reproductions/test_online.py::test_the_whole_paper_interrupted",
    "tests/kernels/test_running.py::test_peak_memory_of_forty_thousand_squared",
    "tests/kernels/test_int8.py::test_the_integer_product_is_exact_at_its_extremes",
    "tests/io/test_atomic_folder.py::test_seeds_killed_at_twenty_random_moments",
    "tests/cli/test_cli.py::test_doctor_checks_exactness",
    "tests/cost/test_rates.py::test_a_doctor_on_a_gpu",
    "tests/embedding/test_cross_run.py::test_more_runs_than_letters",
    "tests/embedding/test_embedding.py::test_many_runs_are_embedded",
    "tests/comparisons/test_seeds.py::test_figures_for_many_runs",
    "tests/test_docs.py::test_a_notebook_runs",
    "tests/test_pages.py::test_every_block_runs_and_prints_what_the_page_says[docs/which-number.md]",
    "tests/test_pages.py::test_every_block_runs_and_prints_what_the_page_says[docs/how-to/cluster.md]",
    "tests/test_pages.py::test_every_block_runs_and_prints_what_the_page_says[docs/how-to/gpu.md]",
    "tests/test_pages.py::test_every_block_runs_and_prints_what_the_page_says[docs/how-to/large.md]",
    "tests/test_pages.py::test_every_block_runs_and_prints_what_the_page_says[docs/how-to/maps.md]",
    "tests/comparisons/test_pair.py::test_greedy_is_sequential_greedy_and_optimal_is_scipys_on_the_demo",
    "tests/comparisons/test_pair.py::test_memory_above_the_inputs_is_flat",
    "tests/comparisons/test_seeds.py::test_every_pair_is_what_compare_has",
    "tests/comparisons/test_seeds.py::test_encoders_are_matched_too",
    "tests/demo/test_stages.py::test_the_queue_stops_on_sigterm",
    "tests/embedding/test_embedding.py::test_fuzzy_graph_equals_umap_learns",
    "tests/embedding/test_embedding.py::test_the_weights_are_those_of_umap_learns",
    "tests/explorer/test_explorer_devices.py::test_fifty_thousand_points",
    "tests/io/test_escaping.py::test_a_file_of_any_name_is_compared",
    "tests/kernels/test_sweep.py::test_cases_give_the_same_bits_from_every_screen_block_size_and_thread_count[200]",
    "tests/kernels/test_sweep.py::test_a_thousand_rows_with_awkward_blocks",
    "tests/kernels/test_running.py::test_a_memory_ceiling_is_kept[15",
    "tests/kernels/test_running.py::test_a_memory_ceiling_is_kept[1-0-1",
    "tests/kernels/test_running.py::test_a_memory_ceiling_is_kept[1-0-2-200",
    "tests/kernels/test_sweep_on_simulated_gpu.py::test_same_bits_as_on_the_cpu_and_audited_unasked[fp16]",
    "tests/kernels/test_sweep_on_simulated_gpu.py::test_same_bits_as_on_the_cpu_and_audited_unasked[t",
    "tests/matching/test_matching_optimal.py::test_demo_pairs",
    "tests/reproductions/test_demo_runs.py",
    "tests/reproductions/test_against_original.py::test_across_demo_dictionaries_both_ways[local-seed0-local-seed1",
    "tests/reproductions/test_against_original.py::test_across_demo_dictionaries_both_ways[e2e-seed0-e2e-seed1",
    *(
        f"tests/test_simulated_gpu.py::test_the_answer_is_the_cpus[{x}]"
        for x in ("agreement", "greedy", "mutual", "umap")
    ),
    "tests/workers/test_distributed.py::test_bit_identical_for_any_number_of_workers[1]",
    "tests/workers/test_lost_workers.py::test_all_workers_killed",
    "tests/workers/test_lost_workers.py::test_a_signal_ends_client_and_workers[sigterm]",
    "tests/workers/test_lost_workers.py::test_a_signal_ends_client_and_workers[sigkill]",
    "tests/workers/test_lost_workers.py::test_a_tile_that_kills_its_workers",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    # These run first, so that one worker starts the Dask cluster and no other takes over half of its tests.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/workers/"))


def pytest_collection_finish() -> None:
    """Freeze imported modules, which the garbage collector would otherwise traverse again and again."""
    gc.collect()
    gc.freeze()
