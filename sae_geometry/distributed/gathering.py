"""Tiles become a sweep again: their lists merged, their reports made one, whatever the order they come in."""

from __future__ import annotations

from collections.abc import Sequence

from sae_geometry.distributed.collect import AT_ONCE, Answer, as_array, as_best, joined_report, take_in
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.topk_merge import no_lists
from sae_geometry.kernels.types import Sweep, SweepReport, Task

_RESULT, _SENT, _TAKEN = 24, 24, 40  # bytes of an entry: of a result, of what comes in and its frame, while taken in


class Gathering:
    """The lists of a sweep and the reports of its tiles, as far as they have come.

    Args:
        task: the sweep.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._bias = None if task.column_bias is None else as_array(task.column_bias)
        self._rows = no_lists(len(task.a), task.k)
        self._cols = self._rows if task.within else no_lists(len(task.others), task.k) if task.columns else None
        self._reports: dict[Tile, SweepReport] = {}
        self._notes: set[str] = set()

    def take(self, tile: Tile, answer: Answer) -> None:
        """Merge in what was found of a tile."""
        absolute = self._task.absolute
        take_in(self._rows, answer.rows, tile.rows[0], absolute=absolute, bias=self._bias)
        if answer.cols is not None and self._cols is not None:
            take_in(self._cols, answer.cols, tile.cols[0], absolute=absolute, bias=None)
        self._reports[tile] = answer.report
        self._notes |= {answer.note} - {""}

    @property
    def share(self) -> float:
        """Of all pairs, those whose tiles have come."""
        n, m = len(self._task.a), len(self._task.others)
        return min(1.0, sum(tile.pairs for tile in self._reports) / (n * n / 2 if self._task.within else n * m))

    def sweep(self, workers: int, seconds: float) -> Sweep:
        """The whole, once every tile has come."""
        device = self._task.a.device
        cols = None if self._task.within or self._cols is None else as_best(self._cols, device)
        return Sweep(as_best(self._rows, device), cols, self._report(workers, seconds))

    def _report(self, workers: int, seconds: float) -> SweepReport:
        reports = [self._reports[t] for t in sorted(self._reports, key=lambda t: (t.rows, t.cols))]
        why = [f"{len(reports)} tiles on {workers} Dask workers", *sorted(self._notes), reports[0].why]
        return joined_report(self._task, reports, "; ".join(why), seconds)


def bytes_here(task: Task, tiles: Sequence[Tile]) -> int:
    """What a sweep takes in this process while its tiles are done elsewhere: all results, one tile's lists."""
    two_sided = task.columns or task.within
    results = len(task.a) + (len(task.others) if task.columns and not task.within else 0)
    lists = max((t.rows[1] - t.rows[0]) + (t.cols[1] - t.cols[0] if two_sided else 0) for t in tiles)
    return task.k * (_RESULT * results + _SENT * lists) + _TAKEN * AT_ONCE
