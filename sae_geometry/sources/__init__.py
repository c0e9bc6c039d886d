"""Sources of dictionaries: addresses, the table of layouts, and the only code that accesses the network.

The main entry point is `load(address)`. Importing this package imports neither wandb nor huggingface_hub.
"""

from sae_geometry.sources.as_dictionary import as_dictionary
from sae_geometry.sources.cache import CachedRun, cache_root, cached_runs, clear_cache
from sae_geometry.sources.catalog import PaperRun, paper_runs
from sae_geometry.sources.demo import Demo, demos
from sae_geometry.sources.errors import AddressError, LayoutError, SourceError
from sae_geometry.sources.fetch import FetchedFile, checkpoints, fetch
from sae_geometry.sources.http import Limits
from sae_geometry.sources.inspect import Inspection, inspect
from sae_geometry.sources.load import OrientationWarning, load
from sae_geometry.sources.neuronpedia import neuronpedia_lists, neuronpedia_pages, neuronpedia_url
from sae_geometry.sources.wandb.runs import RunInfo, runs, similar_runs

__all__ = [
    "AddressError",
    "CachedRun",
    "Demo",
    "FetchedFile",
    "Inspection",
    "LayoutError",
    "Limits",
    "OrientationWarning",
    "PaperRun",
    "RunInfo",
    "SourceError",
    "as_dictionary",
    "cache_root",
    "cached_runs",
    "checkpoints",
    "clear_cache",
    "demos",
    "fetch",
    "inspect",
    "load",
    "neuronpedia_lists",
    "neuronpedia_pages",
    "neuronpedia_url",
    "paper_runs",
    "runs",
    "similar_runs",
]
