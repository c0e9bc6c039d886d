"""Ledger of the sweeps behind a result, with the screen of each sweep and the reason for choosing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sae_geometry.kernels.settings import changed, current


@dataclass(frozen=True)
class Entry:
    """Totals of the sweeps with the same screen, reason and device: their number, duration and redone rows."""

    screen: str
    why: str
    device: str
    sweeps: int
    seconds: float
    redone: int


@contextmanager
def ledger() -> Iterator[None]:
    """Open a ledger that records every sweep finished within the context; `entries` returns the records."""
    with changed(sweeps={}):
        yield


def record(report: Any) -> None:
    """Record a finished sweep, given its `SweepReport`, if a ledger is open."""
    redone = report.rows_redone + report.cols_redone
    enter([Entry(report.screen, report.why, report.device, 1, report.seconds, redone)])


def enter(others: Iterable[Entry]) -> None:
    """Add entries to the open ledger; do nothing if no ledger is open."""
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
    """Return the entries of the open ledger; () if no ledger is open."""
    return tuple((current().sweeps or {}).values())
