"""Errors of distributed execution."""

from __future__ import annotations


class ClusterError(OSError):
    """The cluster is unreachable, was lost, or gave a wrong answer."""


class EnvironmentMismatchError(RuntimeError):
    """A worker's float sums would differ from the client's, so it must not run whole pairs."""


class NotLoadedError(RuntimeError):
    """A worker could not load a dictionary from its address, or loaded a different one."""


def lost(address: str) -> ClusterError:
    """Return the error to raise when the scheduler is lost."""
    return ClusterError(f"the Dask scheduler at {address} was lost; restart it and rerun the command")


def wrong_answer(why: str) -> ClusterError:
    """Return the error to raise when a worker's answer is wrong."""
    return ClusterError(
        f"a Dask worker gave a wrong answer {why}; it was discarded: do not trust this cluster until "
        "sae-geometry doctor passes on its workers"
    )


class WorkerMemoryError(MemoryError):
    """The smallest task exceeds a worker's memory."""
