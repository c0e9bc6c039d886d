"""What can go wrong with a cluster, each in one sentence."""

from __future__ import annotations


class ClusterError(OSError):
    """The cluster cannot be reached, or was lost."""


class UnlikeError(RuntimeError):
    """A worker would add up otherwise than the client: whole pairs are not for it."""


class NotLoadedError(RuntimeError):
    """A worker could not load a dictionary from its address, or found another one there."""


def lost(address: str) -> ClusterError:
    """The scheduler is gone."""
    return ClusterError(f"the Dask scheduler at {address} was lost; start it again and run the same command")


class WorkerMemoryError(MemoryError):
    """The smallest piece of work is too much for a worker."""
