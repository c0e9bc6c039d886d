"""A sweep put together from its pieces: lists that merge, in whatever order they come, and one report of them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from sae_geometry.kernels.topk_merge import Lists, merge_into
from sae_geometry.kernels.types import Best, SweepReport, Task

Sent = tuple[np.ndarray, np.ndarray]
"""The signed cosines (float64) and indices (int32) of lists: 12 bytes a partner; the score follows from them."""

AT_ONCE = 1 << 16  # entries of lists taken in at once


def to_send(best: Best, start: int) -> Sent:
    """Lists as they travel; `start` is where their indices begin in the whole."""
    index = best.index.cpu().numpy()
    return best.cosine.cpu().numpy(), np.where(index >= 0, index + start, -1).astype(np.int32)


def to_keep(lists: Lists) -> Sent:
    """Lists of the whole as they are kept."""
    return lists[1], lists[2].astype(np.int32)


def take_in(lists: Lists, sent: Sent, start: int, *, absolute: bool, bias: np.ndarray | None) -> None:
    """Merge in the lists of the rows from `start` on, a part at a time.

    They come without scores: those are made anew, by the operations that made them where they were found.
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
    """The lists as a sweep gives them."""
    return Best(*(torch.from_numpy(x).to(device) for x in lists))


def joined_report(task: Task, reports: Sequence[SweepReport], why: str, seconds: float) -> SweepReport:
    """One report of a sweep made in pieces: the first piece's where they are alike or it does not matter."""
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


def _all_of(told: Iterable[str]) -> str:
    """Each name once; a report may be of several already."""
    return ", ".join(sorted({name for names in told for name in names.split(", ")}))


def as_array(x: torch.Tensor) -> np.ndarray:
    """A tensor's numbers on the CPU, rows in order; not copied where they are that already."""
    return x.detach().cpu().contiguous().numpy()
