"""Did these two sparse autoencoders learn the same features? Exact, fast geometric comparison of SAE dictionaries.

>>> import sae_geometry as sg
>>> c = sg.compare("demo:local-seed0", "demo:local-seed1")
>>> c.a_to_b.mmcs > c.a_to_b.chance + 0.2
True

The public names below are resolved when first used: importing the package imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Agreement": "agreement",
    "Comparison": "comparison",
    "Dictionary": "dictionary",
    "Drift": "drift",
    "Embedding": "embedding",
    "Matching": "partners",
    "Projection": "projection",
    "SeedComparison": "seed_comparison",
    "SourceError": "sources",
    "SpanOverlap": "subspaces",
    "SplitMap": "splitting",
    "WithinComparison": "within",
    "as_dictionary": "sources",
    "compare": "comparison",
    "compare_checkpoints": "drift",
    "compare_seeds": "seeds",
    "compare_within": "within",
    "demos": "sources",
    "embed": "embedding",
    "encoder_agreement": "agreement",
    "estimate": "planning",
    "exact_neighbors": "neighbors",
    "expected_max_cosine": "nulls",
    "explore": "explorer",
    "fetch": "sources",
    "keeping_sweeps": "executor",
    "load": "sources",
    "log_wandb": "wandb_log",
    "memory_ceiling": "kernels.blocks",
    "neuronpedia_url": "sources",
    "plots": "plots",
    "project": "projection",
    "random_directions": "nulls",
    "read": "store",
    "read_shapes": "shapes",
    "runs": "sources",
    "save": "store",
    "similar_runs": "sources",
    "span_overlap": "subspaces",
    "split_map": "splitting",
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604  (names resolved by __getattr__)

if TYPE_CHECKING:
    from sae_geometry import plots
    from sae_geometry.agreement import Agreement, encoder_agreement
    from sae_geometry.comparison import Comparison, compare
    from sae_geometry.dictionary import Dictionary
    from sae_geometry.drift import Drift, compare_checkpoints
    from sae_geometry.embedding import Embedding, embed
    from sae_geometry.executor import keeping_sweeps as keeping_sweeps
    from sae_geometry.explorer import explore
    from sae_geometry.kernels.blocks import memory_ceiling
    from sae_geometry.neighbors import exact_neighbors
    from sae_geometry.nulls import expected_max_cosine, random_directions
    from sae_geometry.partners import Matching
    from sae_geometry.planning import estimate
    from sae_geometry.projection import Projection, project
    from sae_geometry.seed_comparison import SeedComparison
    from sae_geometry.seeds import compare_seeds
    from sae_geometry.shapes import read_shapes
    from sae_geometry.sources import SourceError, as_dictionary, demos, fetch, load, neuronpedia_url, runs, similar_runs
    from sae_geometry.splitting import SplitMap, split_map
    from sae_geometry.store import read, save
    from sae_geometry.subspaces import SpanOverlap, span_overlap
    from sae_geometry.wandb_log import log_wandb
    from sae_geometry.within import WithinComparison, compare_within


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
