"""What is kept of a sweep under way: the lists of the rows that are done, and what they are the answer to."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sae_geometry.distributed.collect import Sent, as_array
from sae_geometry.io.atomic_folder import whole_file
from sae_geometry.kernels.types import SweepReport, Task

VERSION = 1
HALF = ".sweep-"  # how the name of a file begins that is being written


@dataclass(frozen=True)
class SweepIdentity:
    """All that the answer of a sweep depends on: the numbers themselves, by their SHA-256, and what is asked of them.

    The screen, blocks, threads and device are left out: the answer is exact, so it does not depend on them.
    """

    a: str
    b: str
    n: int
    m: int
    d_in: int
    k: int
    columns: bool
    absolute: bool
    bias: str
    version: int = VERSION

    @property
    def file_name(self) -> str:
        """Of the record."""
        return f"sweep-{hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:24]}.npz"

    @property
    def within(self) -> bool:
        """Whether partners are looked for in A itself."""
        return self.b == ""


@dataclass(frozen=True, eq=False)
class SweepRecord:
    """The first rows of a sweep, done.

    Attributes:
        done: how many rows of A: every pair (i, j) with i < done has been looked at.
        rows: lists of all rows of A, [n, k] (empty from `done` on, but within A, where later rows have partners too).
        cols: lists of B's rows, [m, k]; None if not asked for, or within A.
        report: of the sweeps that made it, joined.
    """

    done: int
    rows: Sent
    cols: Sent | None
    report: SweepReport


def identify(task: Task) -> SweepIdentity:
    """What this task asks, by content."""
    return SweepIdentity(
        a=_digest(as_array(task.a)),
        b="" if task.b is None else _digest(as_array(task.b)),
        n=task.a.shape[0],
        m=task.others.shape[0],
        d_in=task.a.shape[1],
        k=task.k,
        columns=task.columns or task.within,
        absolute=task.absolute,
        bias="" if task.column_bias is None else _digest(as_array(task.column_bias)),
    )


def write_sweep(path: Path, record: SweepRecord, identity: SweepIdentity) -> None:
    """Write a record, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    about = json.dumps({"identity": asdict(identity), "done": record.done, "report": asdict(record.report)})
    arrays: dict[str, Any] = {"about": np.array(about)}
    for side, sent in (("rows", record.rows), ("cols", record.cols)):
        if sent is not None:
            arrays |= {f"{side}_{what}": x for what, x in zip(_PARTS, sent, strict=True)}
    with whole_file(path, HALF) as file:
        np.savez(file, **arrays)


def read_sweep(path: Path, identity: SweepIdentity) -> SweepRecord | None:
    """The record of exactly this question; None where it is missing, damaged or of something else."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            about: dict[str, Any] = json.loads(str(stored["about"]))
            if about["identity"] != asdict(identity):
                return None
            rows = _lists(stored, "rows", (identity.n, identity.k), identity.m)
            two_sided = identity.columns and not identity.within
            cols = _lists(stored, "cols", (identity.m, identity.k), identity.n) if two_sided else None
        done = int(about["done"])
        report = SweepReport(**about["report"] | {"blocks": tuple(about["report"]["blocks"])})
        return SweepRecord(done, rows, cols, report) if 0 < done <= identity.n else None
    except Exception:  # one flipped bit may raise anything
        return None


_PARTS = ("cosine", "index")


def _lists(stored: Any, side: str, shape: tuple[int, int], among: int) -> Sent:
    """One side's lists.

    Raises:
        ValueError: they do not fit.
    """
    cosine, index = (stored[f"{side}_{what}"] for what in _PARTS)
    fits = cosine.shape == index.shape == shape and (cosine.dtype, index.dtype) == (np.float64, np.int32)
    if not fits or int(index.min()) < -1 or int(index.max()) >= among:
        raise ValueError("not the lists of this sweep")
    return cosine, index


def _digest(x: np.ndarray) -> str:
    return hashlib.sha256(x.data).hexdigest()
