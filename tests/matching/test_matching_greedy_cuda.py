"""Tests of greedy's GPU kernels: compiled by nvcc if installed, run as sequential C++, and on a GPU."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from pathlib import Path

import matching_cases
import numpy as np
import pytest

from sae_geometry.kernels.sweep import sweep
from sae_geometry.matching import greedy_cuda
from sae_geometry.matching.greedy_loops import join_dominant

HOST = r"""
struct Dim { unsigned x; };
static Dim blockIdx, blockDim, threadIdx, gridDim;
#define __global__ static
#include "kernels.cuh"

template <class Kernel> static void launch(long long threads, int backward, Kernel kernel)
{
    blockDim.x = 32;
    gridDim.x = (unsigned)((threads + 31) / 32);
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long t = 0; t < all; ++t) {
        const long long at = backward ? all - 1 - t : t;
        blockIdx.x = (unsigned)(at / blockDim.x);
        threadIdx.x = (unsigned)(at % blockDim.x);
        kernel();
    }
}

extern "C" long long rounds(long long n, long long k, const long long* row_lists, long long* row_at, long long m,
                            long long l, const long long* col_lists, long long* col_at, long long* partner,
                            long long* owner, int backward)
{
    long long count = 0;
    int joined = 1;
    while (joined) {
        joined = 0;
        launch(n, backward, [&] { point(n, k, row_lists, row_at, partner, owner); });
        launch(m, backward, [&] { point(m, l, col_lists, col_at, owner, partner); });
        launch(n, backward, [&] { join(n, k, row_lists, row_at, l, col_lists, col_at, partner, owner, &joined); });
        ++count;
    }
    return count;
}
"""


@pytest.fixture(scope="module")
def as_cpp(tmp_path_factory):
    """Compile the kernels as a shared library that runs their threads one after another."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    folder: Path = tmp_path_factory.mktemp("kernels")
    # Functions in `extern "C"` cannot be static, and C++ needs neither.
    (folder / "kernels.cuh").write_text(greedy_cuda.SOURCE.replace('extern "C" {', "").rstrip()[:-1])
    (folder / "host.cpp").write_text(HOST)
    library = folder / "kernels.so"
    subprocess.run(
        [compiler, "-O1", "-std=c++17", "-Wall", "-Werror", "-shared", "-fPIC", "-fsanitize=undefined",
         "-fno-sanitize-recover=all", "-o", str(library), str(folder / "host.cpp")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return ctypes.CDLL(str(library)).rounds


@functools.cache
def swept(index, k):
    case = matching_cases.case(index)
    return sweep(case.a, case.b, k, absolute=case.absolute)


def lists_of(index, k):
    """Return a case's lists at length k (one less for columns), with no latent matched."""
    rows, cols = swept(index, k).rows, swept(index, k).cols
    return state(rows.index.numpy(), cols.index.numpy()[:, : max(1, k - 1)])


def state(row_list, col_list):
    n, m = len(row_list), len(col_list)
    return [np.ascontiguousarray(row_list), np.zeros(n, np.int64), np.ascontiguousarray(col_list),
            np.zeros(m, np.int64), np.full(n, -1, np.int64), np.full(m, -1, np.int64)]  # fmt: skip


def copied(arrays):
    return [x.copy() for x in arrays]


def run_cpp(function, arrays, backward):
    row_list, row_at, col_list, col_at, partner, owner = arrays

    def p(x):
        return x.ctypes.data_as(ctypes.c_void_p)

    function.restype = ctypes.c_longlong
    return function(
        ctypes.c_longlong(row_list.shape[0]), ctypes.c_longlong(row_list.shape[1]), p(row_list), p(row_at),
        ctypes.c_longlong(col_list.shape[0]), ctypes.c_longlong(col_list.shape[1]), p(col_list), p(col_at),
        p(partner), p(owner), ctypes.c_int(backward),
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("backward", [0, 1])
def test_kernels_equal_the_cpus_rounds_in_either_order_of_threads(as_cpp, backward, k):
    joined = 0
    for index in matching_cases.SMALL[::3]:
        ours = lists_of(index, k)
        theirs = copied(ours)
        rounds = join_dominant(*ours)
        assert run_cpp(as_cpp, theirs, backward) >= rounds - 1
        np.testing.assert_array_equal(theirs[4], ours[4])
        np.testing.assert_array_equal(theirs[5], ours[5])
        greedy_cuda.audit(*theirs)
        joined += (ours[4] >= 0).sum()
    assert joined > 1000


def test_kernels_go_on_from_a_partial_matching(as_cpp):
    ours = lists_of(35, 8)
    ours[4][:3], ours[5][[4, 2, 9]] = [4, 2, 9], [0, 1, 2]
    theirs = copied(ours)
    join_dominant(*ours)
    run_cpp(as_cpp, theirs, 0)
    assert theirs[4][:3].tolist() == [4, 2, 9]
    np.testing.assert_array_equal(theirs[4], ours[4])


def test_the_audit_refuses_what_rounds_cannot_leave():
    good = lists_of(35, 8)
    join_dominant(*good)
    greedy_cuda.audit(*good)
    row = int(np.flatnonzero(good[4] >= 0)[0])
    torn = copied(good)
    torn[5][torn[4][row]] = -1
    with pytest.raises(RuntimeError, match="inconsistent partners"):
        greedy_cuda.audit(*torn)
    undone = copied(good)
    undone[5][undone[4][row]] = undone[4][row] = -1
    with pytest.raises(RuntimeError, match=r"dominant pair unmatched|skipped a free partner"):
        greedy_cuda.audit(*undone)
    with pytest.raises(RuntimeError, match="dominant pair unmatched"):
        greedy_cuda.audit(*lists_of(35, 8))


def test_nvcc_compiles_the_source(tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    (tmp_path / "kernels.cu").write_text(greedy_cuda.SOURCE)
    done = subprocess.run(
        [nvcc, "-arch=sm_90", "-cubin", "-Xptxas", "-v", "-o", str(tmp_path / "kernels.cubin"), "kernels.cu"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.count("0 bytes spill stores, 0 bytes spill loads") == 2
    assert "point" in done.stderr
    assert "join" in done.stderr
    assert "barrier" not in done.stderr.replace("used 0 barriers", "")


def test_without_cupy_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    assert not greedy_cuda.available()
    with pytest.raises(ImportError, match=r"sae-geometry\[cu13\]"):
        greedy_cuda.join_dominant_cuda(*lists_of(35, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not greedy_cuda.available(), reason="needs CuPy and a GPU")
def test_on_a_gpu():
    for index in range(0, matching_cases.N_CASES, 7):
        ours = lists_of(index, 5)
        theirs = copied(ours)
        join_dominant(*ours)
        greedy_cuda.join_dominant_cuda(*theirs)
        np.testing.assert_array_equal(theirs[4], ours[4])
