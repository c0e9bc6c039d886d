"""Work on more than one machine, by Dask: the same answers to the bit. Dask is not imported until it is asked for."""

from sae_geometry.executor.opening import Executor, running_on
from sae_geometry.executor.spreading import Spreads, spread

__all__ = ["Executor", "Spreads", "running_on", "spread"]
