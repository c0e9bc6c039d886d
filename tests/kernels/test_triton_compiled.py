"""Tests of the fused kernels compiled for other GPUs: tensor cores, register spills and shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")

# the tensor-core instruction and the shared memory per program, by compute capability
TENSOR_CORES = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
PTX = {80: "sm_80", 90: "sm_90a", 100: "sm_100a"}
EVERY = ("fp16:1", "fp16:64", "tf32:1", "float32:1", "float32:64")  # precision and k
REGISTERS = 65_536  # per multiprocessor
# Bytes that may be spilled so that a second program fits a multiprocessor. ptxas does so for one kernel: 16 bytes
# with triton 3.6 on sm_80, and 16 and 8 bytes with 3.8 on sm_80 and sm_90a, but none with 3.7.
SPILLED_FOR_A_SECOND = 0 if triton.__version__.startswith("3.7.") else 16


@pytest.mark.parametrize(
    ("target", "cases"),
    [
        pytest.param(90, ("fp16:64", "float32:1"), id="90 quick"),
        *(pytest.param(target, EVERY, id=str(target)) for target in TENSOR_CORES),
    ],
)
def test_kernels_compiled_for(target: int, cases: tuple[str, ...], tmp_path: Path) -> None:
    """Compile in a separate process, without the interpreter and without a warm cache."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_ahead.py")
    done = subprocess.run(
        [sys.executable, str(script), str(target), *cases],
        capture_output=True, text=True, env=env | {"TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *kernels, too_large = json.loads(done.stdout)
    assert len(kernels) == len(cases) + 1
    for made in kernels:
        assert made["ptx"] == PTX[target]
        a_second_fits = made["registers"] * made["threads"] * 2 == REGISTERS
        assert made["stack"] <= (SPILLED_FOR_A_SECOND if a_second_fits else 0), f"spills: {made}"
        assert made["stack"] or not made["local"], f"spills: {made}"
        assert made["registers"] * made["threads"] <= REGISTERS, made
        assert 0 < made["shared"] <= SHARED[target], made
        kind, multiplies = made["kernel"].split(",")[0], set(made["multiplies"])
        if kind == "merge":
            assert multiplies == set(), made
        elif kind == "list float32":  # Tensor cores would exceed the ε of float32.
            assert multiplies, made
            assert multiplies <= {"FFMA", "FFMA2"}, made
        else:
            assert TENSOR_CORES[target] in multiplies, made
    assert too_large["stack"] > 16, "a kernel that is too large should spill registers"
    assert too_large["local"] > 0
