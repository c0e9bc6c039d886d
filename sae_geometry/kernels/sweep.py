"""The exact k best partners of every row (and every column) of C = A·Bᵀ, computed without forming C."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.kernels.audit import audit as audit_sweep
from sae_geometry.kernels.blocks import (
    DEFAULT_MEMORY,
    Blocks,
    block_copies,
    cpu_blocks,
    device_blocks,
    listing_bytes,
    memory_limit,
)
from sae_geometry.kernels.error_bounds import row_norms
from sae_geometry.kernels.fallback import redo
from sae_geometry.kernels.ledger import record
from sae_geometry.kernels.rescore import decide
from sae_geometry.kernels.screens.cpu import screen_cpu, shortlist_width
from sae_geometry.kernels.screens.int8 import Int8Screen, prepare_int8
from sae_geometry.kernels.screens.torch import listed_width, screen_torch
from sae_geometry.kernels.screens.triton import screen_triton
from sae_geometry.kernels.settings import current
from sae_geometry.kernels.types import (
    Best,
    Progress,
    Runner,
    Scoring,
    Screen,
    ScreenName,
    Shortlist,
    Sweep,
    SweepReport,
    Task,
    precision_of,
)

MAX_K = 64
_PER_ENTRY = 64  # bytes per listed pair while it is screened, re-scored and ordered
_PER_THREAD = 16  # bytes per listed pair in the lists of each thread
_LARGEST = 2.0**126  # Above this, a float32 product or sum may overflow.


def sweep(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d_b"] | None = None,
    k: int = 1,
    *,
    columns: bool = True,
    absolute: bool = False,
    column_bias: Float[Tensor, " entries"] | None = None,
    screen: ScreenName = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    blocks: tuple[int, int] | None = None,
    memory: int | None = None,
    audit: bool | None = None,
) -> Sweep:
    """Find the exact k best partners of every row, and of every column, of C = A·Bᵀ in one pass over its blocks.

    The score of (i, j) is the exact inner product of the float32 rows rounded to float64, its absolute value with
    `absolute=True`, minus `column_bias[j]` if a bias is given. The order is score descending, then index ascending, so
    the answer does not depend on block sizes, threads or device. With `b=None`, partners are searched within A,
    excluding self by index, from half the blocks. README.md in this folder proves that the answer is exact.

    Args:
        a: float32 [n, d].
        b: float32 [m, d] on the same device, or None to search within A.
        k: number of partners, 1…64. Missing partners have score −inf, cosine nan, index −1.
        columns: whether to find the k best rows of every column too; ignored within A, which has only one side.
        absolute: rank by |⟨a, b⟩|.
        column_bias: float64 [m], subtracted from the score; rows only (`columns=False`).
        screen: "cpu" (float32 products, compiled loops), "int8" (integer products on the CPU), "torch" (any device),
            "fp16" and "tf32" (any device, made for tensor cores), "triton", "triton-fp16" and "triton-tf32" (fused, on
            CUDA, with triton installed), or "auto": on the CPU int8 if a sample shows that it pays, else float32;
            torch on other devices. `report.why` has the reason.
        threads: number of CPU threads; if None, torch's thread count, capped at the CPUs that this process may use.
        progress: called with the share of blocks done, in (0, 1], on the thread that finished the block.
        blocks: rows and columns of a block; chosen from cache sizes and memory if None.
        memory: limit on peak memory in bytes, including results but not inputs; if None, the limit of
            `sae_geometry.settings`, else 256 MiB on the CPU and 2 GiB on other devices.
        audit: whether to check the answer by an independent path (`audit`); by default on every device but the CPU.

    Returns:
        Sweep with `.rows`, `.cols` (`Best`: score, cosine, index) and `.report`.

    Raises:
        ValueError: mismatched shapes, types or devices; NaN or infinite entries; rows so large that float32 products
            overflow; or k out of range.
        CeilingError: the memory limit is too low (a subclass of ValueError).
        AuditError: the audit found a wrong answer.

    Example:
        >>> import torch
        >>> sweep(torch.eye(3), torch.eye(3).roll(1, 0)).rows.index.flatten().tolist()
        [1, 2, 0]
    """
    start = time.perf_counter()
    task = _task(a, b, k, columns, absolute, column_bias, screen, threads, progress, blocks, memory)
    runner: Runner | None = current().runner
    if runner is not None and blocks is None and not audit:
        elsewhere = runner(task, screen)
        if elsewhere is not None:
            record(elsewhere.report)
            return elsewhere
    run, name, why = _choose(screen, task)
    a, others = task.a, task.others
    row_lists, col_lists = run(task)
    scoring = Scoring(absolute, task.column_bias, exclude_self=task.within)
    rows, rows_redone = _settle(a, others, row_lists, k, scoring, task.threads)
    cols, cols_redone = None, 0
    if col_lists is not None:
        cols, cols_redone = _settle(others, a, col_lists, k, Scoring(absolute), task.threads)
    checked = None
    if a.device.type != "cpu" if audit is None else audit:
        checked = audit_sweep(task, row_lists, col_lists, rows, cols)
    report = SweepReport(
        screen=name,
        why=why,
        device=str(a.device),
        n_rows=a.shape[0],
        n_cols=others.shape[0],
        d_in=a.shape[1],
        k=k,
        epsilon=float(row_lists.epsilon.max()),
        rows_redone=rows_redone,
        cols_redone=cols_redone,
        seconds=round(time.perf_counter() - start, 4),
        blocks=(task.blocks.rows, task.blocks.cols),
        threads=task.threads,
        memory=task.memory,
        audit=checked,
    )
    record(report)
    return Sweep(rows, cols, report)


@dataclass(frozen=True)
class SweepPlan:
    """Plan of a sweep: screen, reason for the screen, blocks, threads, and memory in bytes."""

    screen: str
    why: str
    blocks: tuple[int, int]
    threads: int
    memory: int


def plan_sweep(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d_b"] | None = None,
    k: int = 1,
    *,
    columns: bool = True,
    screen: ScreenName = "auto",
    threads: int | None = None,
    memory: int | None = None,
) -> SweepPlan:
    """Return the plan that `sweep` would follow with these arguments; at most a sample of rows is computed."""
    task = _task(a, b, k, columns, False, None, screen, threads, None, None, memory)
    run, name, why = _choose(screen, task)
    n, m, width = len(task.a), len(task.others), shortlist_width(k)
    copies = 6 if task.a.device.type != "cpu" else block_copies(task.memory) * task.threads
    takes = 4 * copies * task.blocks.size
    if isinstance(run, Int8Screen):
        width, takes = run.width, 12 * task.threads * task.blocks.size + run.scores.y.q.numel()
    takes += listing_bytes(n, m, k, columns or task.within, task.threads, width)
    return SweepPlan(name, why, (task.blocks.rows, task.blocks.cols), task.threads, takes)


def cpu_threads() -> int:
    """Return the default number of CPU threads: torch's thread count, capped at the CPUs that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), allowed))


def _task(
    a: Tensor,
    b: Tensor | None,
    k: int,
    columns: bool,
    absolute: bool,
    column_bias: Tensor | None,
    screen: ScreenName,
    threads: int | None,
    progress: Progress | None,
    blocks: tuple[int, int] | None,
    memory: int | None,
) -> Task:
    """Check the arguments of a sweep and fill in defaults; blocks that are not given are planned when first needed."""
    a, b = a.detach(), None if b is None else b.detach()
    a_norms, b_norms = _check(a, b, k, columns, column_bias)
    a, b = a.contiguous(), None if b is None else b.contiguous()
    bias = None if column_bias is None else column_bias.detach().to(a.device)
    workers = threads or cpu_threads()
    limit, asked = memory_limit(memory, a.device.type), memory is not None or current().memory is not None

    def plan(task: Task) -> Blocks:
        return _blocks(task, screen) if blocks is None else Blocks(*blocks)

    return Task(a, b, a_norms, b_norms, k, columns, absolute, bias, workers, limit, asked, plan, progress)


def _settle(x: Tensor, y: Tensor, lists: Shortlist, k: int, scoring: Scoring, threads: int) -> tuple[Best, int]:
    best, certified = decide(x, y, lists, k, scoring, threads)
    failed = (~certified).nonzero().flatten()
    return (redo(x, y, failed, best, scoring) if failed.numel() else best), int(failed.numel())


def _choose(screen: ScreenName, task: Task) -> tuple[Screen, str, str]:
    """Return the screen, its name, and the reason for choosing it."""
    device = task.a.device
    if screen in ("cpu", "int8") and device.type != "cpu":
        raise ValueError(f"screen={screen!r} needs tensors on the CPU; these are on {device}")
    precision = precision_of(screen)
    if screen.startswith("triton"):
        return partial(screen_triton, precision=precision), f"triton-{precision}", "asked for"
    if precision != "float32":
        return partial(screen_torch, precision=precision), f"torch-{precision}", "asked for"
    if screen == "torch" or device.type != "cpu":
        return screen_torch, "torch-float32", "asked for" if screen == "torch" else f"tensors are on {device}"
    if screen == "cpu":
        return screen_cpu, "cpu-float32", "asked for"
    prepared = prepare_int8(task, asked_for=screen == "int8")
    if isinstance(prepared, Int8Screen):
        return prepared, "cpu-int8", prepared.why
    if screen == "int8":
        raise ValueError(f"screen='int8' cannot run: {prepared}")
    return screen_cpu, "cpu-float32", f"tensors are on the CPU; {prepared}"


def _blocks(task: Task, screen: ScreenName) -> Blocks:
    """Return blocks that fit the memory limit with everything else; off the CPU, they may exceed a default limit."""
    n, m, k, columns = task.a.shape[0], task.others.shape[0], task.k, task.columns or task.within
    if screen not in ("auto", "cpu", "int8") or task.a.device.type != "cpu":
        precision = precision_of(screen)
        width = listed_width(k, precision if screen.startswith("triton") else "fp16")
        copies = (n + m) * task.a.shape[1] * {"fp16": 2, "tf32": 4, "float32": 0}[precision]
        held = copies + listing_bytes(n, m, k, columns, 1, width)
        spare = task.memory - held
        return device_blocks(n, m, k, spare if task.memory_asked else max(spare, DEFAULT_MEMORY), held=held)
    held = listing_bytes(n, m, k, columns, task.threads, shortlist_width(k))
    return cpu_blocks(n, m, task.threads, task.memory - held, block_copies(task.memory), held=held)


def _check(a: Tensor, b: Tensor | None, k: int, columns: bool, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the row norms of both sides; raise ValueError for arguments that a sweep cannot process."""
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be in 1…{MAX_K}; got {k}")
    norms: list[Tensor] = []
    for name, x in (("a", a), ("b", b)):
        if x is None:
            norms.append(norms[0])
            continue
        if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
            raise ValueError(f"{name} must be a nonempty [rows, width]; got shape {tuple(x.shape)}")
        if x.dtype != torch.float32:
            raise ValueError(f"{name} must be float32, the type of normalized directions; got {x.dtype}")
        if x.device.type == "mps":
            raise ValueError(f"{name} is on MPS, which has no float64: move it to the CPU with .to('cpu')")
        norms.append(row_norms(x))
        wrong = ~torch.isfinite(norms[-1])
        if wrong.any():
            raise ValueError(f"{name} has NaN or infinite entries, first in row {int(wrong.nonzero()[0])}")
    if b is not None and (a.shape[1] != b.shape[1] or a.device != b.device):
        raise ValueError(f"a and b must have the same width and device; got {tuple(a.shape)} on {a.device} and "
                         f"{tuple(b.shape)} on {b.device}")  # fmt: skip
    offset = 0.0
    if bias is not None:
        m = (a if b is None else b).shape[0]
        if columns and b is not None:
            raise ValueError("column_bias applies to the scores of rows only; pass columns=False")
        if b is None:
            raise ValueError("column_bias needs two dictionaries, since C − v is not symmetric within one; pass b")
        if bias.shape != (m,) or bias.dtype != torch.float64 or not bool(torch.isfinite(bias).all()):
            raise ValueError(f"column_bias must be finite float64 [{m}]; got {bias.dtype} {list(bias.shape)}")
        offset = float(bias.abs().max())
    largest = float(norms[0].max()) * float(norms[1].max()) + offset
    if largest > _LARGEST:
        raise ValueError(f"scores up to {largest:.3g} overflow float32; scale down the rows or the bias")
    return norms[0], norms[1]


def listing_sweep(a: Tensor, b: Tensor | None, k: int, **how: Any) -> Sweep:
    """Run `sweep(a, b, k, …)`, adding memory for its lists to the default limit, but not to a limit in the settings."""
    return sweep(a, b, k, memory=listing_memory(a, b, k), **how)


def listing_memory(a: Tensor, b: Tensor | None, k: int) -> int | None:
    """Return the memory limit of `listing_sweep` in bytes; None if the settings have a limit, which then applies."""
    if current().memory is not None:
        return None
    entries = (a.shape[0] + (0 if b is None else b.shape[0])) * (k + 8)
    return memory_limit(None, a.device.type) + entries * (_PER_ENTRY + _PER_THREAD * cpu_threads())
