"""Record of the sweeps behind an answer: the screen of each one made while a ledger is open, and why it was chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sae_geometry.kernels.settings import changed, current


@dataclass(frozen=True)
class Entry:
    """Sweeps that ran alike: on one device, by one screen, for one reason; how many, how long, how many rows redone."""

    screen: str
    why: str
    device: str
    sweeps: int
    seconds: float
    redone: int


@contextmanager
def ledger() -> Iterator[None]:
    """Record the sweeps that finish within the context, for `entries`."""
    with changed(sweeps={}):
        yield


def record(report: Any) -> None:
    """Enter a finished sweep's `SweepReport`, if a ledger is open."""
    redone = report.rows_redone + report.cols_redone
    enter([Entry(report.screen, report.why, report.device, 1, report.seconds, redone)])


def enter(others: Iterable[Entry]) -> None:
    """Add entries of another ledger to the open one, if there is one."""
    book = current().sweeps
    if book is None:
        return
    for other in others:
        key = (other.screen, other.why, other.device)
        so_far = book.get(key, Entry(*key, 0, 0.0, 0))
        book[key] = replace(
            so_far,
            sweeps=so_far.sweeps + other.sweeps,
            seconds=round(so_far.seconds + other.seconds, 4),
            redone=so_far.redone + other.redone,
        )


def entries() -> tuple[Entry, ...]:
    """Return what the open ledger holds; empty where none is open."""
    return tuple((current().sweeps or {}).values())
