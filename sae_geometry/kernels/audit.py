"""Audit of a finished sweep: recheck part of the answer without trusting the code that produced it.

Every run on a GPU, and any run that requests it, ends with this audit: every listed score is held against ε, and some
rows and columns are worked out again in float64 by a path that shares no code with the screens (README.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.types import Best, Scoring, Shortlist, Task

SAMPLED = 64
MOST_EDGES = 64
LAST = 16
_CHUNK_ENTRIES = 1 << 20
_FLOAT64_ERROR = 2.0**-40  # relative; far above the error of a float64 product, far below float32 resolution


class AuditError(RuntimeError):
    """A sweep gave a wrong answer on this device; discard its result."""


def audit(task: Task, row_lists: Shortlist, col_lists: Shortlist | None, rows: Best, cols: Best | None) -> str:
    """Return what was checked of a finished sweep, in words; raise AuditError at the first error found."""
    a, b = task.a, task.others
    by_row = Scoring(task.absolute, task.column_bias, exclude_self=task.within)
    by_col = Scoring(task.absolute)
    listed, worst = _check_listed(a, b, row_lists, by_row, "row")
    if col_lists is not None:
        more, worse = _check_listed(b, a, col_lists, by_col, "column")
        listed, worst = listed + more, max(worst, worse)
    some_rows = _sample(len(a), task.blocks.rows, a.device)
    some_cols = _sample(len(b), task.blocks.cols, a.device)
    _check_answers(a, b, some_rows, rows, by_row, "row")
    _check_no_better(a, b, some_cols, rows, by_row)
    if cols is not None:
        _check_answers(b, a, some_cols, cols, by_col, "column")
    return (
        f"{listed:,} listed scores within ε (worst {worst:.2g} of it); {len(some_rows)} rows and {len(some_cols)} "
        "columns worked out again in float64"
    )


def _check_listed(x: Tensor, y: Tensor, lists: Shortlist, scoring: Scoring, side: str) -> tuple[int, float]:
    """Check that every listed score lies within ε of the exact one."""
    rows, at = (lists.indices >= 0).nonzero(as_tuple=True)
    n, worst = len(rows), 0.0
    for start in range(0, n, _CHUNK_ENTRIES):
        part = slice(start, start + _CHUNK_ENTRIES)
        r, c = rows[part], lists.indices[rows[part], at[part]]
        if bool((c >= len(y)).any()):
            raise _wrong(f"{side} {int(r[(c >= len(y)).nonzero()[0, 0]])} lists a partner beyond the last", scoring)
        exact = scoring(exact_dots(x, y, r, c), c)
        error = (lists.scores[r, at[part]].to(torch.float64) - exact).abs()
        within = error <= lists.epsilon[r]
        if not bool(within.all()):
            where = int((~within).nonzero()[0, 0])
            raise _wrong(
                f"{side} {int(r[where])} lists partner {int(c[where])} with a score {float(error[where]):.3g} "
                f"from exact, more than ε = {float(lists.epsilon[r[where]]):.3g}",
                scoring,
            )
        worst = max(worst, float((error / lists.epsilon[r].clamp(min=1e-300)).max()))
    return n, worst


def _check_answers(x: Tensor, y: Tensor, rows: Tensor, best: Best, scoring: Scoring, side: str) -> None:
    """Check that these rows have the partners that float64 finds."""
    k = best.score.shape[1]
    every = torch.arange(len(y), device=x.device)
    for row in rows.tolist():
        score = scoring((y.to(torch.float64) @ x[row].to(torch.float64)), every)
        if scoring.exclude_self:
            score[row] = -torch.inf
        found = best.index[row][best.index[row] >= 0]
        if len(found) < min(k, len(y) - scoring.exclude_self):
            raise _wrong(f"{side} {row} has {len(found)} partners where it should have {k}", scoring)
        if len(found) == 0:  # a single row within itself
            continue
        tolerance = _FLOAT64_ERROR * float(score[found].abs().max() + 1)
        exact = scoring(exact_dots(x, y, torch.full_like(found, row), found), found)
        if not torch.equal(exact, best.score[row][: len(found)]):
            raise _wrong(f"{side} {row} has a score that is not the exact one", scoring)
        if len(found) > 1 and bool((exact.diff() > 0).any()):
            raise _wrong(f"{side} {row} is out of order", scoring)
        score[found] = -torch.inf
        if float(score.max()) > float(exact[-1]) + tolerance:
            raise _wrong(f"{side} {row} misses partner {int(score.argmax())}", scoring)


def _check_no_better(x: Tensor, y: Tensor, cols: Tensor, best: Best, scoring: Scoring) -> None:
    """Check that no row scores better with one of these columns than its k-th best without listing it."""
    for col in cols.tolist():
        here = torch.full((len(x),), col, device=x.device)
        score = scoring(x.to(torch.float64) @ y[col].to(torch.float64), here)
        if scoring.exclude_self:
            score[col] = -torch.inf
        tolerance = _FLOAT64_ERROR * (score.abs().nan_to_num(0.0, posinf=0.0) + 1)
        missed = (score > best.score[:, -1] + tolerance) & ~(best.index == col).any(dim=1)
        if bool(missed.any()):
            raise _wrong(f"row {int(missed.nonzero()[0, 0])} misses partner {col}", scoring)


def _sample(n: int, block: int, device: torch.device) -> Tensor:
    """Sample 64 at random, the first and last of up to 32 blocks including the last block, and the last 16."""
    g = torch.Generator().manual_seed(n)
    some = torch.randperm(n, generator=g)[:SAMPLED] if n <= 1 << 20 else torch.randint(n, (SAMPLED,), generator=g)
    starts = torch.arange(0, n, block)
    starts = torch.cat([starts[:: max(1, len(starts) * 2 // MOST_EDGES)], starts[-1:]])
    edges = torch.cat([starts, (starts + block - 1).clamp(max=n - 1)])
    return torch.cat([some, edges, torch.arange(max(0, n - LAST), n)]).unique().to(device)


def _wrong(what: str, scoring: Scoring) -> AuditError:
    kind = "absolute" if scoring.absolute else "signed"
    return AuditError(
        f"audit of the {kind} sweep failed: {what}. Do not use this device's answers; "
        "run again on the CPU and report this with the output of `sae-geometry doctor`"
    )
