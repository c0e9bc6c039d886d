"""Who does a sweep: this process, unless somebody else has been asked to for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sae_geometry.kernels.types import Task

if TYPE_CHECKING:
    from sae_geometry.kernels.types import ScreenName, Sweep


@runtime_checkable
class Runner(Protocol):
    """Takes a whole sweep over, and gives the same answer to the bit; None where it would rather not.

    The task's operands have been checked. Its threads, memory and blocks are what this process would use; the blocks
    are planned when first asked for, and may not fit the memory here.
    """

    def __call__(self, task: Task, screen: ScreenName) -> Sweep | None: ...


_RUNNER: ContextVar[Runner | None] = ContextVar("sweep runner", default=None)


@contextmanager
def sweeps_run_by(runner: Runner | None) -> Iterator[None]:
    """While this lasts, in this thread, `runner` is offered every sweep; None means this process."""
    token = _RUNNER.set(runner)
    try:
        yield
    finally:
        _RUNNER.reset(token)


def current_runner() -> Runner | None:
    """Whoever sweeps are offered to here and now; None for this process."""
    return _RUNNER.get()
