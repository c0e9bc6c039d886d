"""What can go wrong with a cluster, each in one sentence."""

from __future__ import annotations


class ClusterError(OSError):
    """The cluster cannot be reached, or was lost."""


def lost(address: str) -> ClusterError:
    """The scheduler is gone."""
    return ClusterError(f"the Dask scheduler at {address} was lost; start it again and run the same command")
