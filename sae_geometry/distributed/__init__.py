"""Distributed execution with Dask, with bit-identical results. Dask is imported only when it is used."""

from sae_geometry.distributed.client import Executor, settings
from sae_geometry.distributed.pairs import spread
