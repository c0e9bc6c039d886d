"""Tests that the audit passes right results and catches every way in which a device has been seen to go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from kernel_cases import SCREENS, gaussian, lattice, planted, sae_like
from torch import Tensor

from sae_geometry.kernels import sweep as sweep_module
from sae_geometry.kernels.audit import AuditError
from sae_geometry.kernels.screens import triton as screen_triton
from sae_geometry.kernels.screens.low_precision import to_tf32
from sae_geometry.kernels.screens.torch import screen_torch
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Shortlist, Task

Lists = tuple[Shortlist, Shortlist | None]


@pytest.mark.parametrize("screen", [*SCREENS, "fp16", "tf32"])
@pytest.mark.parametrize("within", [False, True])
def test_a_right_answer_passes(screen: str, within: bool) -> None:
    pairs = [
        sae_like(80, 110, 32),
        planted(60, 70, 5, seed=2),
        (lattice(90, 5), lattice(80, 5, 1)),
        (gaussian(1, 3),) * 2,
    ]
    for (a, b), absolute in zip(pairs, (within, not within, within, not within), strict=True):
        found = sweep(a, None if within else b, 3, screen=screen, absolute=absolute, blocks=(32, 50), audit=True)
        assert found.report.audit is not None
        assert "recomputed in float64" in found.report.audit
    if not within:
        bias = torch.linspace(-1, 1, 200, dtype=torch.float64)
        sweep(*sae_like(150, 200, 32), 3, screen=screen, column_bias=bias, columns=False, audit=True)


def dropped_last_tile(task: Task) -> Lists:
    """Omit the columns after the last whole block."""
    m = len(task.others)
    kept = (m - 1) // task.blocks.cols * task.blocks.cols
    short = replace(task, b=task.others[:kept], b_norms=task.b_norms[:kept])
    rows, cols = screen_torch(short)
    if cols is not None:
        rest = m - kept
        width = cols.scores.shape[1]
        cols = Shortlist(
            torch.cat([cols.scores, torch.full((rest, width), -torch.inf)]),
            torch.cat([cols.indices, torch.full((rest, width), -1)]),
            torch.cat([cols.epsilon, cols.epsilon[-1:].expand(rest)]),
            torch.cat([cols.beyond, torch.full((rest,), -torch.inf, dtype=torch.float64)]),
        )
    return rows, cols


def wrong_row_block(task: Task) -> Lists:
    """Swap two row blocks of the result."""
    rows, cols = screen_torch(task)
    order = torch.arange(len(task.a))
    size = task.blocks.rows
    order[:size], order[size : 2 * size] = order[size : 2 * size].clone(), order[:size].clone()
    return Shortlist(rows.scores[order], rows.indices[order], rows.epsilon, rows.beyond), cols


def tail_overflow(task: Task) -> Lists:
    """Number the columns of the last, partial block as if it were a whole one."""
    rows, cols = screen_torch(task)
    m, size = len(task.others), task.blocks.cols
    start = (m - 1) // size * size
    return replace(
        rows, indices=torch.where(rows.indices >= start, rows.indices + size - m + start, rows.indices)
    ), cols


def lost_precision(task: Task) -> Lists:
    """Compute the product in tf32 but claim the ε of float32."""
    low = replace(task, a=to_tf32(task.a), b=to_tf32(task.others))
    return screen_torch(low)


def stale_epsilon(task: Task) -> Lists:
    """Claim that the unlisted columns score lower than they do."""
    rows, cols = screen_torch(replace(task, k=1))
    return replace(rows, scores=rows.scores[:, 1:], indices=rows.indices[:, 1:], beyond=rows.beyond - 2), cols


BUGS = (dropped_last_tile, wrong_row_block, tail_overflow, lost_precision, stale_epsilon)


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize(("columns", "seed"), [(False, 0), (True, 1)])
def test_an_injected_bug_is_caught(
    bug: Callable[[Task], Lists], columns: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sae_like(1500, 1700, 48, seed)
    options = {"columns": columns, "blocks": (256, 300), "screen": "torch"}
    right = sweep(a, b, audit=True, **options)
    monkeypatch.setattr(sweep_module, "screen_torch", bug)
    if bug in (dropped_last_tile, stale_epsilon):  # The audit is needed: without it these bugs give wrong results.
        assert not torch.equal(sweep(a, b, audit=False, **options).rows.index, right.rows.index)
    with pytest.raises((AuditError, IndexError)):
        sweep(a, b, audit=True, **options)


def columns_without_the_last_rows(task: Task) -> Lists:
    """Return right lists for rows, but lists for columns that lack the last rows."""
    kept = len(task.a) - 200
    short = replace(task, a=task.a[:kept], a_norms=task.a_norms[:kept])
    return screen_torch(task)[0], screen_torch(short)[1]


def test_a_column_that_misses_a_partner_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "screen_torch", columns_without_the_last_rows)
    with pytest.raises(AuditError, match=r"column \d+ misses partner"):
        sweep(*sae_like(700, 600, 24), screen="torch", blocks=(256, 300), audit=True)


def dropped_last_columns(task: Task) -> Lists:
    """Omit the last few columns, whatever the blocks."""
    kept = len(task.others) - 20
    return screen_torch(replace(task, b=task.others[:kept], b_norms=task.b_norms[:kept]))


@pytest.mark.parametrize("seed", range(5))
def test_a_tail_smaller_than_any_block_is_missed_by_none(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sae_like(2000, 5000, 16, seed)
    monkeypatch.setattr(sweep_module, "screen_torch", dropped_last_columns)
    with pytest.raises(AuditError, match="misses partner"):
        sweep(a, b, columns=False, screen="torch", blocks=(512, 3000), audit=True)


# The bugs below are the same ones in the fused screen, made where its kernel is launched.

Launch = Callable[..., tuple[Tensor, Tensor]]


def tile_dropped(launch: Launch, loops: ModuleType, x: Tensor, y: Tensor, bias: None, **how: Any) -> Any:
    cols = how["tile"].cols
    return launch(loops, x, y[: (len(y) - 1) // cols * cols], bias, **how)


def rows_of_another_tile(launch: Launch, loops: ModuleType, x: Tensor, y: Tensor, bias: None, **how: Any) -> Any:
    size = how["tile"].rows
    order = torch.arange(len(x))
    order[:size], order[size : 2 * size] = order[size : 2 * size].clone(), order[:size].clone()
    return tuple(t[:, order] for t in launch(loops, x, y, bias, **how))


def tail_not_masked(launch: Launch, loops: ModuleType, x: Tensor, y: Tensor, bias: None, **how: Any) -> Any:
    """Multiply the memory after the last column too."""
    rest = -len(y) % how["tile"].cols
    return launch(loops, x, torch.cat([y, x[:1].expand(rest, -1)]), bias, **how)


def operands_cut(launch: Launch, loops: ModuleType, x: Tensor, y: Tensor, bias: None, **how: Any) -> Any:
    """Multiply bfloat16 operands but claim the ε of float32 or fp16."""
    return launch(loops, x.bfloat16().to(x.dtype), y.bfloat16().to(y.dtype), bias, **how)


def a_split_not_read(launch: Launch, loops: ModuleType, x: Tensor, y: Tensor, bias: None, **how: Any) -> Any:
    values, indices = launch(loops, x, y, bias, **how)
    assert len(values) > 1
    return values[:-1].contiguous(), indices[:-1].contiguous()


FUSED_BUGS = (tile_dropped, rows_of_another_tile, tail_not_masked, operands_cut, a_split_not_read)


@pytest.mark.parametrize(
    ("bug", "screen", "within"),
    [(bug, "triton", bug is tile_dropped) for bug in FUSED_BUGS] + [(operands_cut, "triton-fp16", False)],
)
def test_a_bug_in_the_fused_screen_is_caught(
    bug: Callable[..., Any], screen: str, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    a, b = sae_like(150, 140, 24)
    monkeypatch.setattr(screen_triton, "list_row_block", partial(bug, screen_triton.list_row_block))
    with pytest.raises((AuditError, IndexError)):
        sweep(a, None if within else b, columns=False, blocks=(150, 64), screen=screen, audit=True)


def test_the_audit_runs_by_itself_off_the_cpu_only() -> None:
    a = gaussian(20, 4)
    assert sweep(a).report.audit is None
    assert sweep(a, audit=True).report.audit is not None
