"""Load dictionaries from addresses. Only this package downloads files.

The main entry point is `load(address)`. Importing this package imports neither wandb nor huggingface_hub.
"""

from sae_geometry.sources.as_dictionary import as_dictionary
from sae_geometry.sources.cache import cache_root, cached_runs, clear_cache
from sae_geometry.sources.catalog import paper_runs
from sae_geometry.sources.demo import demos
from sae_geometry.sources.errors import AddressError, LayoutError, SourceError
from sae_geometry.sources.fetch import checkpoints, fetch
from sae_geometry.sources.http import Limits
from sae_geometry.sources.inspect import inspect
from sae_geometry.sources.load import OrientationWarning, load
from sae_geometry.sources.neuronpedia import neuronpedia_lists, neuronpedia_pages, neuronpedia_url
from sae_geometry.sources.wandb.runs import RunInfo, runs, similar_runs
