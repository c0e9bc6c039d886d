"""The one primitive: the exact k best partners of every row (and every column) of C = A·Bᵀ, without forming C."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sae_geometry.kernels.decide import Best, Scoring, decide, redo
from sae_geometry.kernels.screen import Progress, Screen, Shortlist, Task, screen_cpu, screen_torch

ScreenName = Literal["auto", "cpu", "torch"]
MAX_K = 64


@dataclass(frozen=True)
class SweepReport:
    """How a sweep was run: enough to say why its answer can be trusted and what it cost."""

    screen: str
    why: str
    device: str
    n_rows: int
    n_cols: int
    d_in: int
    k: int
    epsilon: float
    rows_redone: int
    cols_redone: int
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """The k best of every row of A among B, and of every row of B among A (None if not asked, or within A)."""

    rows: Best
    cols: Best | None
    report: SweepReport


def sweep(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"] | None = None,
    k: int = 1,
    *,
    columns: bool = True,
    absolute: bool = False,
    column_bias: Float64[Tensor, " m"] | None = None,
    screen: ScreenName = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """The exact k best partners of every row, and of every column, of C = A·Bᵀ in one pass over its blocks.

    The score of (i, j) is the exact inner product of the float32 rows rounded to float64, its absolute value with
    `absolute=True`, minus `column_bias[j]` if a bias is given. The order is score descending, then index ascending, so
    the answer does not depend on block sizes, threads or device. With `b=None` the partners are looked for within A,
    self excluded by index, at half the blocks.

    Args:
        a: float32 [n, d].
        b: float32 [m, d] on the same device, or None for within A.
        k: how many partners, 1…64. Where fewer exist: score −inf, cosine nan, index −1.
        columns: also the k best rows of every column. Ignored within A, where they are the same.
        absolute: rank by |⟨a, b⟩|.
        column_bias: float64 [m], subtracted from the score; rows only (`columns=False`).
        screen: "cpu" (compiled loops), "torch" (any device), or "auto".
        threads: CPU threads; all that torch was given if None.
        progress: called with the share of the work done, in (0, 1].

    Returns:
        Sweep with `.rows`, `.cols` (`Best`: score, cosine, index) and `.report`.

    Raises:
        ValueError: shapes, types or devices that do not fit, NaN or infinite entries, k out of range.

    Example:
        >>> import torch
        >>> from sae_geometry.kernels.sweep import sweep
        >>> sweep(torch.eye(3), torch.eye(3).roll(1, 0)).rows.index.flatten().tolist()
        [1, 2, 0]
    """
    _check(a, b, k, columns, column_bias)
    start = time.perf_counter()
    others = a if b is None else b
    bias = None if column_bias is None else column_bias.to(a.device)
    n, m = a.shape[0], others.shape[0]
    run, name, why = _choose(screen, a)
    epsilon = screening_error(a, others, bias)
    width = k + 2 + k // 8
    task = Task(a.contiguous(), None if b is None else b.contiguous(), width, columns, absolute, bias,
                threads or cpu_threads(), progress)  # fmt: skip
    with torch.no_grad():
        row_lists, col_lists = run(task)
        scoring = Scoring(absolute, bias, exclude_self=b is None)
        rows, rows_redone = _settle(task.a, task.others, row_lists, k, epsilon, scoring)
        cols, cols_redone = None, 0
        if col_lists is not None:
            cols, cols_redone = _settle(task.others, task.a, col_lists, k, epsilon, Scoring(absolute))
    seconds = time.perf_counter() - start
    report = SweepReport(
        name, why, str(a.device), n, m, a.shape[1], k, epsilon, rows_redone, cols_redone, round(seconds, 4)
    )
    return Sweep(rows, cols, report)


def screening_error(a: Tensor, b: Tensor, bias: Tensor | None) -> float:
    """ε ≥ |float32 score − exact score| for every pair.

    A float32 inner product of length d, summed in any order, with or without fused multiply-add, errs by at most
    γ_d Σ|x_t y_t| ≤ γ_d ‖x‖‖y‖ with γ_d = d·u/(1 − d·u), u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical
    Algorithms, §3.1). A bias adds its rounding to float32 and the subtraction's.
    """
    u, d = 2.0**-24, a.shape[1]
    norms = float(_largest_norm(a) * _largest_norm(b))
    epsilon = d * u / (1 - d * u) * norms + d * 2.0**-126
    if bias is not None:
        epsilon += 2.1 * u * (norms + float(bias.abs().max()))
    return epsilon * (1 + 1e-6)


def cpu_threads() -> int:
    """The CPU threads a sweep uses unless told: what torch was given, within what this process may use."""
    return max(1, min(torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 64))


def _settle(
    x: Tensor, y: Tensor, lists: Shortlist, k: int, epsilon: float, scoring: Scoring
) -> tuple[Best, int]:
    best, certified = decide(x, y, lists, k, epsilon, scoring)
    failed = (~certified).nonzero().flatten()
    return (redo(x, y, failed, best, epsilon, scoring) if failed.numel() else best), int(failed.numel())


def _choose(screen: ScreenName, a: Tensor) -> tuple[Screen, str, str]:
    if screen == "cpu" and a.device.type != "cpu":
        raise ValueError(f"screen='cpu' needs tensors on the CPU; these are on {a.device}")
    if screen == "torch":
        return screen_torch, "torch-float32", "asked for"
    if a.device.type == "cpu":
        return screen_cpu, "cpu-float32", "asked for" if screen == "cpu" else "tensors are on the CPU"
    return screen_torch, "torch-float32", f"tensors are on {a.device}"


def _largest_norm(x: Tensor) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(p.to(torch.float64), dim=1).max() for p in x.split(8192)]).max()


def _check(a: Tensor, b: Tensor | None, k: int, columns: bool, bias: Tensor | None) -> None:
    if not 1 <= k <= MAX_K:
        raise ValueError(f"k must be in 1…{MAX_K}; got {k}")
    for name, x in (("a", a), ("b", b)):
        if x is None:
            continue
        if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0:
            raise ValueError(f"{name} must be [rows, width] and not empty; got shape {tuple(x.shape)}")
        if x.dtype != torch.float32:
            raise ValueError(f"{name} must be float32, the type of normalised directions; got {x.dtype}")
        for start, part in zip(range(0, x.shape[0], 8192), x.split(8192), strict=True):
            wrong = ~torch.isfinite(part).all(dim=1)
            if wrong.any():
                raise ValueError(f"{name} has NaN or infinite entries, first in row {start + int(wrong.nonzero()[0])}")
    if b is not None and (a.shape[1] != b.shape[1] or a.device != b.device):
        raise ValueError(f"a and b must share width and device; got {tuple(a.shape)} on {a.device} and "
                         f"{tuple(b.shape)} on {b.device}")  # fmt: skip
    if bias is not None:
        m = (a if b is None else b).shape[0]
        if columns and b is not None:
            raise ValueError("column_bias scores rows only: pass columns=False")
        if b is None:
            raise ValueError("column_bias needs two dictionaries: within one, C − v is not symmetric")
        if bias.shape != (m,) or bias.dtype != torch.float64 or not bool(torch.isfinite(bias).all()):
            raise ValueError(f"column_bias must be {m} finite float64 numbers; got {bias.dtype} {tuple(bias.shape)}")
