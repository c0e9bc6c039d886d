"""Fused triton screen: one kernel multiplies and lists, so that no block of scores passes through memory.

The kernel lists only the rows of its left operand: column lists come from a second product with the operands swapped,
and within one dictionary every block is computed rather than half of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sae_geometry.io.extras import require
from sae_geometry.kernels.screens.cpu import meter, shortlist_of
from sae_geometry.kernels.screens.low_precision import Rounded, rounded
from sae_geometry.kernels.screens.torch import epsilons, listed_width
from sae_geometry.kernels.types import Precision, Shortlist, Task

EXTRA = "cu13"  # extra of this package that installs triton
_PROGRAMS_A_PROCESSOR = 4  # programs per multiprocessor, to hide memory latency
_PROCESSORS = 4  # multiprocessors assumed without a GPU, so that columns are split in tests too


@dataclass(frozen=True)
class Tile:
    """Tile of one GPU program (rows × columns × depth), and the program's numbers of warps and pipeline stages."""

    rows: int
    cols: int
    depth: int
    warps: int
    stages: int = 3


def tile_for(precision: Precision, width: int) -> Tile:
    """Return the largest tile for lists of a given width that does not spill registers, as the tests assert."""
    depth = 64 if precision == "fp16" else 32
    if precision == "float32" or width > 32:
        return Tile(64, 64, depth, 8)
    return Tile(128, 64, depth, 8)


def list_width(width: int) -> int:
    """Return the smallest power of two, at least 4, that holds a list of a given width."""
    return max(4, 1 << (width - 1).bit_length())


def screen_triton(task: Task, precision: Precision = "float32") -> tuple[Shortlist, Shortlist | None]:
    """Screen with the fused kernel, whose scores err by at most γ_d ‖x‖‖y‖ (float32) or `rounded_error`."""
    loops = _loops(task.a.device)
    x = rounded(task.a, precision)
    y = x if task.within else rounded(task.others, precision)
    row_epsilon, col_epsilon = epsilons(task, precision, x, y)
    both = task.columns and not task.within
    row_blocks = -(-len(task.a) // task.blocks.rows) + (-(-len(task.others) // task.blocks.rows) if both else 0)
    tick = meter(task.progress, row_blocks)
    rows = _side(loops, task, x, y, precision, tick)
    cols = _side(loops, task, y, x, precision, tick) if both else None
    return shortlist_of(*rows, row_epsilon), None if cols is None else shortlist_of(*cols, col_epsilon)


def _side(
    loops: ModuleType, task: Task, x: Rounded, y: Rounded, precision: Precision, tick: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """List the best rows of y for every row of x, one row block at a time: descending scores and their indices."""
    n, m, device = len(x.values), len(y.values), x.values.device
    width = listed_width(task.k, precision)
    scores = torch.empty((n, width), dtype=torch.float32, device=device)
    indices = torch.empty((n, width), dtype=torch.int64, device=device)
    bias = None if task.column_bias is None else task.column_bias.to(device, torch.float32)
    tile, wide = tile_for(precision, width), list_width(width)
    for start in range(0, n, task.blocks.rows):
        row_block = slice(start, min(start + task.blocks.rows, n))
        parts = splits(row_block.stop - start, m, tile, device)
        each = -(-m // (parts * tile.cols)) * tile.cols
        lists = list_row_block(
            loops, x.values[row_block], y.values, bias, precision=precision, tile=tile, width=wide, each=each,
            factor=1 / (x.scale * y.scale), absolute=task.absolute, own=start if task.within else None,
        )  # fmt: skip
        merge_row_block(loops, lists, scores[row_block], indices[row_block])
        tick()
    return scores, indices


def splits(n: int, m: int, tile: Tile, device: torch.device) -> int:
    """Return the number of column splits at which the programs of n rows occupy the whole device."""
    there = _PROCESSORS
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(-(-m // tile.cols), -(-there * _PROGRAMS_A_PROCESSOR // -(-n // tile.rows))))


def list_row_block(
    loops: ModuleType,
    x: Tensor,
    y: Tensor,
    bias: Tensor | None,
    *,
    precision: Precision,
    tile: Tile,
    width: int,
    each: int,
    factor: float = 1.0,
    absolute: bool = False,
    own: int | None = None,
) -> tuple[Tensor, Tensor]:
    """List each row's best columns per split of `each` columns, [splits, n, width]; row i excludes column `own` + i."""
    n, m = len(x), len(y)
    parts = -(-m // each)
    values = torch.empty((parts, n, width), dtype=torch.float32, device=x.device)
    indices = torch.empty((parts, n, width), dtype=torch.int32, device=x.device)
    with _on(x.device):
        loops.list_tiles[(-(-n // tile.rows), parts)](
            x, y, values if bias is None else bias, values, indices, n, m, x.shape[1], own or 0, each, factor,
            x.stride(0), x.stride(1), y.stride(0), y.stride(1),
            ABSOLUTE=absolute, BIAS=bias is not None, WITHIN=own is not None,
            PRECISION="tf32" if precision == "tf32" else "ieee", WIDTH=width,
            ROWS=tile.rows, COLS=tile.cols, DEPTH=tile.depth, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return values, indices


def merge_row_block(loops: ModuleType, lists: tuple[Tensor, Tensor], scores: Tensor, indices: Tensor) -> None:
    """Merge the lists of all splits into descending `scores` and `indices` [n, ≤ width], padded with −inf and −1."""
    values, columns = lists
    parts, n, width = values.shape
    rows = merge_rows(width)
    with _on(values.device):
        loops.merge_splits[(-(-n // rows),)](
            values, columns, scores, indices, n, parts, scores.shape[1], scores.stride(0),
            WIDTH=width, ROWS=rows, num_warps=4,
        )  # fmt: skip


def merge_rows(width: int) -> int:
    """Return the number of rows that one program merges, so that lists of a given width fit in registers."""
    return 16 if width > 32 else 64


def _on(device: torch.device) -> torch.cuda.device | nullcontext[None]:
    """Select the tensors' device, since triton launches on the current GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _loops(device: torch.device) -> ModuleType:
    """Import the kernels; raise an error if triton is missing, or if there is no GPU and no interpreter is on."""
    require("triton", EXTRA, "a triton screen")
    from sae_geometry.kernels.loops import triton as triton_loops

    if device.type != "cuda" and not triton_loops.interpreted():
        raise ValueError(
            f"the triton screens need tensors on a CUDA device; these are on {device}. "
            "To try them without a GPU, start Python with TRITON_INTERPRET=1"
        )
    return triton_loops
