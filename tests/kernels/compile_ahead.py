"""Compile the fused kernels for GPUs that this machine lacks, and print the compiler's results as JSON.

Run it in a separate process without TRITON_INTERPRET: `python compile_ahead.py 90 fp16:64 float32:1`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sae_geometry.kernels.loops import triton as triton_loops
from sae_geometry.kernels.screens.torch import listed_width
from sae_geometry.kernels.screens.triton import Tile, list_width, merge_rows, tile_for
from sae_geometry.kernels.types import Precision

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MULTIPLIES = ("HMMA", "HGMMA", "UTCHMMA", "FFMA", "FFMA2")
ALIGNED = {"x", "y", "bias", "values", "indices", "d", "each", "x_row", "y_row", "out_values", "out_indices"}


def compiled(kernel: Any, target: int, constants: dict[str, Any], types: dict[str, str], warps: int) -> dict[str, Any]:
    """Return what the compiler reports for one kernel, and the instructions in its machine code."""
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in constants else types.get(name, "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in ALIGNED},
    )
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options={"num_warps": warps, "num_stages": 3})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        used = _told("-res-usage", file.name)
        code = _told("-sass", file.name)
    registers, stack = (int(v) for v in re.search(r"REG:(\d+) STACK:(\d+)", used).groups())  # type: ignore[union-attr]
    return {
        "target": target,
        "ptx": re.search(r"\.target (\w+)", made.asm["ptx"])[1],  # type: ignore[index]
        "shared": made.metadata.shared,
        "registers": registers,
        "threads": 32 * warps,
        "stack": stack,
        "local": len(re.findall(r"\b(?:LDL|STL)\b", code)),
        "multiplies": {op: n for op in MULTIPLIES if (n := len(re.findall(rf"\b{op}\b", code)))},
    }


def _told(option: str, path: str) -> str:
    return subprocess.run([TOOLS / "cuobjdump", option, path], capture_output=True, text=True, check=True).stdout


def listing(target: int, precision: Precision, k: int, tile: Tile | None = None) -> dict[str, Any]:
    """Return the listing kernel as `screen_triton` launches it for the k best, with every option on."""
    width = listed_width(k, precision)
    tile = tile or tile_for(precision, width)
    constants = {
        "ABSOLUTE": True, "BIAS": True, "WITHIN": True, "PRECISION": "tf32" if precision == "tf32" else "ieee",
        "WIDTH": list_width(width), "ROWS": tile.rows, "COLS": tile.cols, "DEPTH": tile.depth,
        "x_entry": 1, "y_entry": 1,
    }  # fmt: skip
    operand = "*fp16" if precision == "fp16" else "*fp32"
    types = {"x": operand, "y": operand, "bias": "*fp32", "values": "*fp32", "indices": "*i32", "factor": "fp32"}
    found = compiled(triton_loops.list_tiles, target, constants, types, tile.warps)
    return {"kernel": f"list {precision}, k={k}", **found}


def merging(target: int, k: int) -> dict[str, Any]:
    """Return the merging kernel for the k best."""
    width = list_width(listed_width(k, "fp16"))
    types = {"values": "*fp32", "indices": "*i32", "out_values": "*fp32", "out_indices": "*i64"}
    found = compiled(triton_loops.merge_splits, target, {"WIDTH": width, "ROWS": merge_rows(width)}, types, 4)
    return {"kernel": f"merge, k={k}", **found}


if __name__ == "__main__":
    target, cases = int(sys.argv[1]), [case.split(":") for case in sys.argv[2:]]
    results = [listing(target, precision, int(k)) for precision, k in cases]  # type: ignore[arg-type]
    results += [merging(target, 64)]
    results += [{**listing(target, "float32", 16, Tile(128, 128, 32, 8)), "kernel": "a tile too large"}]
    print(json.dumps(results))
