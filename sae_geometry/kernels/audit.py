"""Audit of a finished sweep, which rechecks part of the answer without trusting the code that produced it.

Every sweep on a GPU, and any sweep that requests it, ends with this audit. It checks every listed score against ε, and
recomputes some rows and columns in float64 by a path that shares no code with the screens (README.md).
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
_FLOAT64_ERROR = 2.0**-40  # relative tolerance, far above the error of float64 products and far below float32's


class AuditError(RuntimeError):
    """Error raised when an audit finds a wrong answer; the result of the sweep must be discarded."""


def audit(task: Task, row_lists: Shortlist, col_lists: Shortlist | None, rows: Best, cols: Best | None) -> str:
    """Audit a finished sweep and return a sentence on what was checked; raise AuditError at the first wrong answer."""
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
        f"{listed:,} listed scores are within ε (worst error: {worst:.2g} ε); {len(some_rows)} rows and "
        f"{len(some_cols)} columns were recomputed in float64"
    )


def _check_listed(x: Tensor, y: Tensor, lists: Shortlist, scoring: Scoring, side: str) -> tuple[int, float]:
    """Check that every listed score lies within ε of the exact score."""
    rows, at = (lists.indices >= 0).nonzero(as_tuple=True)
    n, worst = len(rows), 0.0
    for start in range(0, n, _CHUNK_ENTRIES):
        part = slice(start, start + _CHUNK_ENTRIES)
        r, c = rows[part], lists.indices[rows[part], at[part]]
        if bool((c >= len(y)).any()):
            raise _wrong(f"{side} {int(r[(c >= len(y)).nonzero()[0, 0]])} lists a partner out of range", scoring)
        exact = scoring(exact_dots(x, y, r, c), c)
        error = (lists.scores[r, at[part]].to(torch.float64) - exact).abs()
        within = error <= lists.epsilon[r]
        if not bool(within.all()):
            where = int((~within).nonzero()[0, 0])
            raise _wrong(
                f"{side} {int(r[where])} lists partner {int(c[where])} with an error of "
                f"{float(error[where]):.3g} in its score, more than ε = {float(lists.epsilon[r[where]]):.3g}",
                scoring,
            )
        worst = max(worst, float((error / lists.epsilon[r].clamp(min=1e-300)).max()))
    return n, worst


def _check_answers(x: Tensor, y: Tensor, rows: Tensor, best: Best, scoring: Scoring, side: str) -> None:
    """Check the partners of a sample of rows against a full computation in float64."""
    k = best.score.shape[1]
    every = torch.arange(len(y), device=x.device)
    for row in rows.tolist():
        score = scoring((y.to(torch.float64) @ x[row].to(torch.float64)), every)
        if scoring.exclude_self:
            score[row] = -torch.inf
        found = best.index[row][best.index[row] >= 0]
        if len(found) < min(k, len(y) - scoring.exclude_self):
            raise _wrong(f"{side} {row} has {len(found)} partners; expected {k}", scoring)
        if len(found) == 0:  # A dictionary of one row has no partners within itself.
            continue
        tolerance = _FLOAT64_ERROR * float(score[found].abs().max() + 1)
        exact = scoring(exact_dots(x, y, torch.full_like(found, row), found), found)
        if not torch.equal(exact, best.score[row][: len(found)]):
            raise _wrong(f"{side} {row} has a score that differs from the exact score", scoring)
        if len(found) > 1 and bool((exact.diff() > 0).any()):
            raise _wrong(f"{side} {row} lists its partners out of order", scoring)
        score[found] = -torch.inf
        if float(score.max()) > float(exact[-1]) + tolerance:
            raise _wrong(f"{side} {row} misses partner {int(score.argmax())}", scoring)


def _check_no_better(x: Tensor, y: Tensor, cols: Tensor, best: Best, scoring: Scoring) -> None:
    """Check that every row lists all sampled columns that score above its k-th best."""
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
    """Return 64 random indices, both ends of up to 63 blocks including the last block, and the last 16 indices."""
    g = torch.Generator().manual_seed(n)
    some = torch.randperm(n, generator=g)[:SAMPLED] if n <= 1 << 20 else torch.randint(n, (SAMPLED,), generator=g)
    starts = torch.arange(0, n, block)
    starts = torch.cat([starts[:: max(1, len(starts) * 2 // MOST_EDGES)], starts[-1:]])
    edges = torch.cat([starts, (starts + block - 1).clamp(max=n - 1)])
    return torch.cat([some, edges, torch.arange(max(0, n - LAST), n)]).unique().to(device)


def _wrong(what: str, scoring: Scoring) -> AuditError:
    kind = "absolute" if scoring.absolute else "signed"
    return AuditError(
        f"the audit of the {kind} sweep failed: {what}. Do not use results from this device; "
        "rerun on the CPU and report this error with the output of `sae-geometry doctor`"
    )
