"""Check the answers of Dask workers, and recompute a sample of their rows.

A worker with another version or faulty memory can return wrong answers without an error. The lists must have the shape
of the tile, partners within the tile and possible cosines, and a few random rows must be bit-identical to a sweep in
this process. This does not protect against a malicious worker, since its answers are unpickled here.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from sae_geometry.distributed.collect import AT_ONCE, Sent, TileAnswer
from sae_geometry.distributed.errors import wrong_answer
from sae_geometry.distributed.worker import PairOutcome, own_version
from sae_geometry.kernels.ledger import Entry
from sae_geometry.kernels.settings import changed
from sae_geometry.kernels.sweep import MAX_K, sweep
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.types import ScreenName, SweepReport, Task

_KINDS: dict[str, Any] = {"str": str, "int": int, "float": int | float}
_SAMPLE = 3  # number of rows recomputed per side of a tile
_ROOM = 64 << 20  # bytes of memory for recomputing the sample, whatever the user's limit


def check_tile(task: Task, tile: Tile, answer: Any) -> None:
    """Raise ClusterError with the reason if an answer for a tile is impossible or wrong."""
    try:
        _check(task, tile, answer)
    except (ValueError, TypeError, AttributeError) as error:
        raise wrong_answer(f"for rows {tile.rows[0]:,} to {tile.rows[1]:,}: {error}") from None


def check_pair_answer(answer: Any) -> None:
    """Raise ClusterError unless an answer is a `PairOutcome` with valid reports of its sweeps."""
    try:
        if not isinstance(answer, PairOutcome) or not all(isinstance(entry, Entry) for entry in answer.sweeps):
            raise TypeError(f"got {type(answer).__name__}")
        for entry in answer.sweeps:
            _check_account(entry)
    except (ValueError, TypeError, AttributeError) as error:
        raise wrong_answer(f"about a pair: {error}") from None


def _check_account(account: SweepReport | Entry) -> None:
    """Check the strings and numbers in a worker's report of a sweep, which are printed and added up."""
    for name, kind in ((f.name, _KINDS.get(str(f.type))) for f in fields(account)):
        value = getattr(account, name)
        if kind is not None and not (isinstance(value, kind) and (kind is str or value >= 0)):
            expected = "a string" if kind is str else "a number of 0 or more"
            raise ValueError(f"the report says {name}={value!r:.40}; expected {expected}")


def _check(task: Task, tile: Tile, answer: Any) -> None:
    if (
        not isinstance(answer, TileAnswer)
        or not isinstance(answer.report, SweepReport)
        or not isinstance(answer.note, str)
    ):
        raise ValueError(f"expected a TileAnswer; got {type(answer).__name__}")
    if answer.version != own_version():
        raise ValueError(f"the worker has sae-geometry {answer.version!r:.40}, but this process has {own_version()!r}")
    a, b = task.a[slice(*tile.rows)], task.others[slice(*tile.cols)]
    said = (answer.report.n_rows, answer.report.n_cols, answer.report.d_in, answer.report.k)
    if said != (len(a), len(b), a.shape[1], task.k):
        raise ValueError("the report belongs to another sweep")
    _check_account(answer.report)
    two_sided = (task.columns or task.within) and not tile.within
    if (answer.cols is not None) != two_sided:
        raise ValueError("the column lists are missing, or were not requested")
    bias = None if task.column_bias is None else task.column_bias[slice(*tile.cols)]
    _check_lists(answer.rows, task, a, b, start=tile.cols[0], bias=bias, within=tile.within)
    if answer.cols is not None:
        _check_lists(answer.cols, task, b, a, start=tile.rows[0], bias=None, within=False)


def _check_lists(
    sent: Sent, task: Task, x: torch.Tensor, y: torch.Tensor, *, start: int, bias: torch.Tensor | None, within: bool
) -> None:
    """Check the partners among rows `y` that are listed for rows `x`; the first row of `y` has index `start`."""
    cosine, index = sent
    shape = (len(x), task.k)
    if not type(cosine) is type(index) is np.ndarray:  # The checks below would ignore masked values.
        raise ValueError("the lists are not plain NumPy arrays")
    if cosine.shape != shape or index.shape != shape or not (cosine.dtype == np.float64 and index.dtype == np.int32):
        raise ValueError("the lists have the wrong shape or type")
    there = index >= 0
    n_partners = min(task.k, len(y) - within)
    if (there != (np.arange(task.k) < n_partners)).any():
        raise ValueError("the lists have the wrong number of partners")
    if (index[there] < start).any() or (index[there] >= start + len(y)).any():
        raise ValueError("the lists have partners outside the tile")
    longest = x.norm(dim=1).cpu().numpy().astype(np.float64)[:, None] * float(y.norm(dim=1).max()) * (1 + 1e-5)
    if not (np.abs(cosine[:, :n_partners]) <= longest).all():
        raise ValueError("the cosines are not finite, or are larger than these rows allow")
    step = max(1, AT_ONCE // task.k)
    for at in range(0, len(x), step):
        part = slice(at, at + step), slice(n_partners)
        _check_order(cosine[part], index[part], task.absolute, bias, start)
    rows = np.sort(np.random.default_rng().choice(len(x), size=min(_SAMPLE, len(x)), replace=False))
    k = min(task.k + within, MAX_K)
    screen: ScreenName = "cpu" if x.device.type == "cpu" else "auto"
    with changed(runner=None, sweeps=None):
        found = sweep(x[rows], y, k, columns=False, absolute=task.absolute, column_bias=bias, screen=screen, threads=1,
                      memory=_ROOM).rows  # fmt: skip
    cosines, indices = found.cosine.cpu().numpy(), found.index.cpu().numpy()
    for at, row in enumerate(rows):
        mine = (indices[at] >= 0) & ~(within & (indices[at] == row))
        n = min(n_partners, int(mine.sum()))  # A sweep within one dictionary may also list the row itself.
        same = np.array_equal(indices[at][mine][:n], index[row, :n] - start)
        if not same or not np.array_equal(cosines[at][mine][:n], cosine[row, :n]):
            raise ValueError("the partners of a row differ from those computed in this process")


def _check_order(
    cosine: np.ndarray, index: np.ndarray, absolute: bool, bias: torch.Tensor | None, start: int
) -> None:  # fmt: skip
    """Check that each list has distinct partners by decreasing score, and equal scores by increasing index."""
    score = np.abs(cosine) if absolute else cosine
    if bias is not None:
        score = score - bias.cpu().numpy()[index - start]
    fall, rise = np.diff(score, axis=1), np.diff(index, axis=1)
    if not ((fall < 0) | ((fall == 0) & (rise > 0))).all() or (np.diff(np.sort(index, axis=1), axis=1) == 0).any():
        raise ValueError("the lists are not in order, or contain a partner twice")
