"""Distributed execution with Dask, with bit-identical answers. Dask is imported only where it is used."""

from sae_geometry.distributed.client import Executor, settings
from sae_geometry.distributed.pairs import spread
