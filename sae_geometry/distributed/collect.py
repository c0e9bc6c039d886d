"""Assemble a sweep from its tiles, whose lists can be merged in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sae_geometry.io.formatting import counted
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.topk_merge import Lists, merge_into, no_lists
from sae_geometry.kernels.types import Best, Sweep, SweepReport, Task

Sent = tuple[np.ndarray, np.ndarray]
"""Partner lists as signed cosines (float64) and indices (int32), 12 bytes per partner, from which scores follow."""

AT_ONCE = 1 << 16  # number of list entries merged at once


def to_send(best: Best, start: int) -> Sent:
    """Convert lists for transfer, and add `start` to their indices, which count from the first column of the tile."""
    index = best.index.cpu().numpy()
    return best.cosine.cpu().numpy(), np.where(index >= 0, index + start, -1).astype(np.int32)


def take_in(lists: Lists, sent: Sent, start: int, *, absolute: bool, bias: np.ndarray | None) -> None:
    """Merge received lists, in chunks, into the lists of the rows from `start` on.

    Scores are not transferred but recomputed, by the same operations as on the worker.
    """
    step = max(1, AT_ONCE // sent[0].shape[1])
    for at in range(0, len(sent[0]), step):
        cosine, index = sent[0][at : at + step], sent[1][at : at + step].astype(np.int64)
        score = np.abs(cosine) if absolute else cosine.copy()
        if bias is not None:
            score -= bias[index]
        score[index < 0] = -np.inf
        merge_into(lists, (score, cosine, index), start + at)


def as_best(lists: Lists, device: torch.device) -> Best:
    """Convert merged lists to tensors on `device`."""
    return Best(*(torch.from_numpy(x).to(device) for x in lists))


def joined_report(task: Task, reports: Sequence[SweepReport], why: str, seconds: float) -> SweepReport:
    """Combine the reports of tiles into one; fields that all tiles share come from the first."""
    return replace(
        reports[0],
        screen=_all_of(r.screen for r in reports),
        why=why,
        device=_all_of(r.device for r in reports),
        n_rows=len(task.a),
        n_cols=len(task.others),
        epsilon=max(r.epsilon for r in reports),
        rows_redone=sum(r.rows_redone for r in reports),
        cols_redone=sum(r.cols_redone for r in reports),
        seconds=round(seconds, 4),
        memory=max(r.memory for r in reports),
    )


def _all_of(lists: Iterable[str]) -> str:
    """Join the distinct screen or device names of several reports."""
    return ", ".join(sorted({name for names in lists for name in names.split(", ")}))


def as_array(x: torch.Tensor) -> np.ndarray:
    """Return a tensor as a contiguous CPU array, without a copy if possible."""
    return x.detach().cpu().contiguous().numpy()


_RESULT, _SENT, _TAKEN = 24, 24, 40  # bytes per list entry in the result, in a received message, and while merging


@dataclass(frozen=True)
class TileAnswer:
    """Answer for a tile: lists of its rows and columns, with indices in the whole matrix, and its report."""

    rows: Sent
    cols: Sent | None
    report: SweepReport
    note: str
    version: str


class Gathering:
    """Accumulator for the lists and reports of a sweep's tiles."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._bias = None if task.column_bias is None else as_array(task.column_bias)
        self._rows = no_lists(len(task.a), task.k)
        self._cols = self._rows if task.within else no_lists(len(task.others), task.k) if task.columns else None
        self._reports: dict[Tile, SweepReport] = {}
        self._notes: set[str] = set()

    def take(self, tile: Tile, answer: TileAnswer) -> None:
        """Merge the lists of a tile, and record its report."""
        absolute = self._task.absolute
        take_in(self._rows, answer.rows, tile.rows[0], absolute=absolute, bias=self._bias)
        if answer.cols is not None and self._cols is not None:
            take_in(self._cols, answer.cols, tile.cols[0], absolute=absolute, bias=None)
        self._reports[tile] = answer.report
        self._notes |= {answer.note} - {""}

    @property
    def share(self) -> float:
        """Return the fraction of pairs whose tiles have arrived."""
        n, m = len(self._task.a), len(self._task.others)
        return min(1.0, sum(tile.pairs for tile in self._reports) / (n * n / 2 if self._task.within else n * m))

    def sweep(self, workers: int, seconds: float) -> Sweep:
        """Return the complete sweep after all tiles have arrived."""
        device = self._task.a.device
        cols = None if self._task.within or self._cols is None else as_best(self._cols, device)
        reports = [self._reports[t] for t in sorted(self._reports, key=lambda t: (t.rows, t.cols))]
        why = [
            f"{counted(len(reports), 'tile')} on {counted(workers, 'Dask worker')}",
            *sorted(self._notes),
            reports[0].why,
        ]
        return Sweep(as_best(self._rows, device), cols, joined_report(self._task, reports, "; ".join(why), seconds))


def bytes_here(task: Task, tiles: Sequence[Tile]) -> int:
    """Return the bytes that a distributed sweep needs in this process, for all results and the lists of one tile."""
    two_sided = task.columns or task.within
    results = len(task.a) + (len(task.others) if task.columns and not task.within else 0)
    lists = max((t.rows[1] - t.rows[0]) + (t.cols[1] - t.cols[0] if two_sided else 0) for t in tiles)
    return task.k * (_RESULT * results + _SENT * lists) + _TAKEN * AT_ONCE
