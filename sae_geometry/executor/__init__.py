"""Work that outlasts one process or one machine: spread by Dask, kept on disk; the same answers to the bit.

Dask is not imported until it is asked for.
"""

from sae_geometry.executor.keeping import KeepingRunner, keeping_sweeps
from sae_geometry.executor.opening import Executor, running_on
from sae_geometry.executor.spreading import Spreads, spread

__all__ = ["Executor", "KeepingRunner", "Spreads", "keeping_sweeps", "running_on", "spread"]
