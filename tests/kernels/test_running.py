"""Tests of a running sweep: memory, progress, interruption, precision settings, and uninitialized buffers."""

from __future__ import annotations

import _thread
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_cases import SCREENS, assert_sweep, gaussian, planted

from sae_geometry.kernels.blocks import (
    DEFAULT_MEMORY,
    MIB,
    Blocks,
    cpu_blocks,
    device_blocks,
    last_level_cache,
    listing_bytes,
)
from sae_geometry.kernels.screens import products
from sae_geometry.kernels.settings import changed
from sae_geometry.kernels.sweep import listing_sweep, sweep

_MEASURE = """
import sys, torch
from sae_geometry.kernels.sweep import sweep

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

n, m, d, k, within, threads = (int(v) for v in sys.argv[1:7])
a = torch.nn.functional.normalize(torch.randn(n, d), dim=1)
b = None if within else torch.nn.functional.normalize(torch.randn(m, d), dim=1)
sweep(a[:600], None if b is None else b[:600], k, threads=threads)
before = status("VmRSS")
sweep(a, b, k, threads=threads)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("m", "k", "within", "threads"), [(40_000, 1, 0, 2), (0, 15, 1, 1)])
def test_peak_memory_of_forty_thousand_squared(m: int, k: int, within: int, threads: int) -> None:
    args = [str(v) for v in (40_000, m, 64, k, within, threads)]
    done = subprocess.run([sys.executable, "-c", _MEASURE, *args], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300, f"{done.stdout.strip()} MB above the inputs; the matrix itself would take 6,104"


_MEASURE_CEILING = """
import sys, torch, sae_geometry as sg
from sae_geometry.kernels.sweep import sweep

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

n, k, within, threads, ceiling, screen = *(int(v) for v in sys.argv[1:6]), sys.argv[6]
a = torch.nn.functional.normalize(torch.randn(n, 64), dim=1)
b = None if within else torch.nn.functional.normalize(torch.randn(n, 64), dim=1)
with sg.settings(memory=f"{ceiling}MB"):
    sweep(a[:600], None if b is None else b[:600], k, threads=threads, screen=screen)
    before = status("VmRSS")
    sweep(a, b, k, threads=threads, screen=screen)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("k", "within", "threads", "ceiling", "screen"),
    [(1, 0, 2, 16, "auto"), (15, 1, 2, 32, "auto"), (1, 0, 2, 200, "auto"), (1, 0, 1, 24, "fp16")],
)
def test_a_memory_ceiling_is_kept(k: int, within: int, threads: int, ceiling: int, screen: str) -> None:
    args = [str(v) for v in (12_000, k, within, threads, ceiling, screen)]
    done = subprocess.run([sys.executable, "-c", _MEASURE_CEILING, *args], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < ceiling, f"{done.stdout.strip()} MB under a ceiling of {ceiling}"


def test_a_ceiling_holds_inside_and_a_given_one_before_it() -> None:
    a = gaussian(200, 4)
    assert sweep(a).report.memory == DEFAULT_MEMORY
    with changed(memory="5MB"):
        assert sweep(a).report.memory == 5 << 20
        with changed(memory=6 << 20):
            assert sweep(a).report.memory == 6 << 20
        assert sweep(a, memory=7 << 20).report.memory == 7 << 20
        assert listing_sweep(a, a, 2).report.memory == 5 << 20
    assert listing_sweep(a, a, 2).report.memory > DEFAULT_MEMORY


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_size_is_refused() -> None:
    for size in ("", "many", "-1MB", "0", 0, "5 XB", "1e9", "9" * 400):
        with pytest.raises(ValueError, match="must be a positive size"), changed(memory=size):
            pass


_MEASURE_NORMS = """
import torch
from sae_geometry.kernels.error_bounds import row_norms

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

x, y = torch.ones(100_000, 768), torch.ones(100_000, 768)
before = status("VmRSS")
row_norms(x), row_norms(y)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_norms_of_many_rows_take_no_second_copy() -> None:
    done = subprocess.run([sys.executable, "-c", _MEASURE_NORMS], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60, f"{done.stdout.strip()} MB for the norms of 293 MB of rows"


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_progress_rises_to_one(screen: str, within: bool, threads: int) -> None:
    seen: list[float] = []
    a = gaussian(100, 8)
    sweep(a, None if within else a, screen=screen, threads=threads, blocks=(9, 14), progress=seen.append)
    assert len(seen) > 20
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert seen[-1] == 1.0


@pytest.mark.parametrize("screen", [*SCREENS, "fp16"])
def test_within_one_dictionary_half_the_blocks_are_computed(screen: str) -> None:
    counts = []
    a = gaussian(100, 8)
    for b in (a.clone(), None):
        ticks: list[float] = []
        sweep(a, b, screen=screen, threads=1, blocks=(10, 10), progress=ticks.append)
        counts.append(len(ticks))
    assert counts == [100, 55]


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("act", "expected"),
    [(_thread.interrupt_main, KeyboardInterrupt), (_raise(RuntimeError("enough")), RuntimeError)],
)
def test_an_interrupted_sweep_stops_and_leaves_no_thread(
    act: Callable[[], None], expected: type[BaseException], threads: int
) -> None:
    a = gaussian(3000, 64)
    before, torch_threads, calls = set(threading.enumerate()), torch.get_num_threads(), []

    def progress(share: float) -> None:
        calls.append(share)
        time.sleep(1e-3)  # The whole sweep would take two seconds.
        if len(calls) == 5:
            act()

    with pytest.raises(expected):
        sweep(a, a, threads=threads, blocks=(64, 64), progress=progress)
    assert set(threading.enumerate()) == before
    assert torch.get_num_threads() == torch_threads
    assert 5 <= len(calls) < 2209  # It stopped before the last block.
    assert_sweep(a[:50], None, 2, threads=threads)


@pytest.mark.parametrize("screen", SCREENS)
def test_buffers_full_of_nan_do_not_show(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_empty, torch_empty_like, numpy_empty = torch.empty, torch.empty_like, np.empty

    def poison(x: Any) -> Any:
        x[...] = float("nan") if x.dtype in (torch.float32, torch.float64, np.float32, np.float64) else 77
        return x

    monkeypatch.setattr(torch, "empty", lambda *a, **k: poison(torch_empty(*a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: poison(torch_empty_like(*a, **k)))
    monkeypatch.setattr(np, "empty", lambda *a, **k: poison(numpy_empty(*a, **k)))
    a, b = planted(63, 100, 7, seed=2)
    for blocks in (None, (16, 24)):
        assert_sweep(a, b, 2, screen=screen, blocks=blocks, threads=2)
        assert_sweep(b, None, 2, screen=screen, blocks=blocks, threads=2)


@pytest.mark.parametrize("screen", SCREENS)
def test_float32_means_float32_whatever_torch_is_set_to(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = products.mm_product

    def spy(*args: torch.Tensor) -> torch.Tensor:
        seen.append((torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision))
        return real(*args)

    monkeypatch.setattr("sae_geometry.kernels.screens.cpu.cpu_product", lambda: (spy, "spy"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with products.full_precision():
            spy(*(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1)))
        assert_sweep(*planted(40, 50, 6, seed=4), 2, screen=screen)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {("ieee", "ieee")}


def test_the_product_taken_is_one_that_gives_right_answers() -> None:
    product, name = products.cpu_product()
    assert name in ("torch.mm", "oneDNN")
    x, y = gaussian(33, 70, 1), gaussian(65, 70, 2)
    torch.testing.assert_close(product(x, y, torch.empty(33 * 65)), x @ y.T, rtol=0, atol=1e-6)


def test_blocks_follow_cache_threads_and_memory() -> None:
    assert last_level_cache() >= 1 << 18
    wide = cpu_blocks(131_072, 131_072, 1, 256 * MIB)
    assert 4 * wide.rows * wide.cols <= max(last_level_cache() // 2, 4 * 64 * 64)
    assert wide.rows % 64 == 0
    both = cpu_blocks(131_072, 131_072, 2, 256 * MIB)
    assert both.rows * both.cols <= wide.rows * wide.cols
    tight = cpu_blocks(131_072, 131_072, 1, MIB)
    assert 2 * 4 * tight.rows * tight.cols <= MIB
    assert cpu_blocks(5, 7, 2, 256 * MIB) == Blocks(5, 7)
    # Four row blocks per thread take precedence over full blocks.
    assert cpu_blocks(1024, 1024, 2, 256 * MIB).rows == 256
    device = device_blocks(131_072, 131_072, 1, 256 * MIB)
    assert 24 * device.rows * device.cols <= 256 * MIB


def test_a_memory_ceiling_is_kept_or_refused() -> None:
    assert listing_bytes(131_072, 131_072, 1, True, 1, 3) < 40 * MIB
    a = gaussian(2000, 16)
    small, large = sweep(a, memory=8 * MIB).report.blocks, sweep(a).report.blocks
    assert small[0] * small[1] <= large[0] * large[1]
    with pytest.raises(ValueError, match="memory limit"):
        sweep(a, a, 64, memory=MIB)


def test_importing_the_sweep_imports_no_compiler() -> None:
    code = "import sys, sae_geometry.kernels.sweep; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
