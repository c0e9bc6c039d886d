"""Work that outlasts one process or one machine: spread by Dask, kept on disk; the same answers to the bit.

Dask is not imported until it is asked for.
"""

from sae_geometry.distributed.client import Executor, running_on
from sae_geometry.distributed.pairs import Spreads, spread
from sae_geometry.distributed.sweep_checkpoint import KeepingRunner, keeping_sweeps

__all__ = ["Executor", "KeepingRunner", "Spreads", "keeping_sweeps", "running_on", "spread"]
