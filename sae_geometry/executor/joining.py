"""A sweep put together from its pieces: lists that merge, in whatever order they come, and one report of them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sae_geometry.kernels.decide import Best
from sae_geometry.kernels.merging import Lists
from sae_geometry.kernels.screen import Task
from sae_geometry.kernels.sweep import SweepReport

Sent = tuple[np.ndarray, np.ndarray]
"""The signed cosines (float64) and indices (int32) of lists: 12 bytes a partner; the score follows from them."""


def to_send(best: Best, start: int) -> Sent:
    """Lists as they travel or are kept; `start` is where their indices begin in the whole."""
    index = best.index.cpu().numpy()
    return best.cosine.cpu().numpy(), np.where(index >= 0, index + start, -1).astype(np.int32)


def as_kept(lists: Lists) -> Sent:
    """Lists of the whole, their scores left out."""
    return lists[1], lists[2].astype(np.int32)


def as_sent(sent: Sent, *, absolute: bool, bias: np.ndarray | None) -> Lists:
    """Lists as they were before `to_send`: the score made anew by the operations that made it there."""
    cosine, index = sent[0], sent[1].astype(np.int64)
    score = np.abs(cosine) if absolute else cosine.copy()
    if bias is not None:
        score = score - bias[index]
    return np.where(index >= 0, score, -np.inf), cosine, index


def as_best(lists: Lists, device: torch.device) -> Best:
    """The lists as a sweep gives them."""
    return Best(*(torch.from_numpy(x).to(device) for x in lists))


def joined_report(task: Task, reports: Sequence[SweepReport], why: str, seconds: float) -> SweepReport:
    """One report of a sweep that was made in pieces: bounds and memory the largest, rows redone their sum."""
    first = reports[0]
    return SweepReport(
        screen=", ".join(sorted({r.screen for r in reports})),
        why=why,
        device=", ".join(sorted({r.device for r in reports})),
        n_rows=task.a.shape[0],
        n_cols=task.others.shape[0],
        d_in=task.a.shape[1],
        k=task.k,
        epsilon=max(r.epsilon for r in reports),
        rows_redone=sum(r.rows_redone for r in reports),
        cols_redone=sum(r.cols_redone for r in reports),
        seconds=round(seconds, 4),
        blocks=first.blocks,
        threads=first.threads,
        memory=max(r.memory for r in reports),
        audit=first.audit,
    )


def array_of(x: torch.Tensor) -> np.ndarray:
    """Its numbers in this machine's memory, row by row."""
    return x.detach().cpu().contiguous().numpy()
