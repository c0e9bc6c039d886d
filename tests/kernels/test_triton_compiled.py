"""The fused kernels, compiled for GPUs that are not here: tensor cores are used, nothing spills, memory suffices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")

# By compute capability: what multiplies on tensor cores there, and the shared memory one program may have.
TENSOR_CORES = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
PTX = {80: "sm_80", 90: "sm_90a", 100: "sm_100a"}
REGISTERS = 65_536  # of a processor
# One kernel of 256 threads is a few registers short on sm_80 with triton 3.6 (torch 2.10); 3.7 compiles it without.
SPILLS = {("list float32, k=1", 80): 16} if triton.__version__.startswith("3.6.") else {}


@pytest.mark.parametrize("target", sorted(TENSOR_CORES))
def test_kernels_compiled_for(target: int, tmp_path: Path) -> None:
    """In a process of its own, without the interpreter and without a warm cache."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_ahead.py")
    done = subprocess.run(
        [sys.executable, str(script), str(target)],
        capture_output=True, text=True, env=env | {"TRITON_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *kernels, too_large = json.loads(done.stdout)
    assert len(kernels) == 8
    for made in kernels:
        assert made["ptx"] == PTX[target]
        allowed = SPILLS.get((made["kernel"], target), 0)
        assert made["stack"] <= allowed, f"spills: {made}"
        assert made["local"] <= allowed, f"spills: {made}"
        assert made["registers"] * made["threads"] <= REGISTERS, made
        assert 0 < made["shared"] <= SHARED[target], made
        kind, multiplies = made["kernel"].split(",")[0], set(made["multiplies"])
        if kind == "merge":
            assert multiplies == set(), made
        elif kind == "list float32":  # tensor cores there would break its ε
            assert multiplies, made
            assert multiplies <= {"FFMA", "FFMA2"}, made
        else:
            assert TENSOR_CORES[target] in multiplies, made
    assert too_large["stack"] > 0, "spills would not be seen"
    assert too_large["local"] > 0
