"""Did these two sparse autoencoders learn the same directions? Exact, fast geometric comparison of SAE dictionaries.

>>> import sae_geometry as sg
>>> c = sg.compare("demo:local-seed0", "demo:local-seed1")
>>> c.a_to_b.mmcs > c.a_to_b.chance + 0.2
True

The public names are imported on first use, so that importing the package itself is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    name: module
    for module, names in {
        "comparisons.by_index": "IndexComparison compare_by_index",
        "comparisons.drift": "Drift drift",
        "comparisons.encoder_agreement": "Agreement agreement",
        "comparisons.flow": "flow",
        "comparisons.flow_result": "Flow",
        "comparisons.ground_truth": "GroundTruth truth",
        "comparisons.match_report": "MatchReport match",
        "comparisons.nearest": "nearest",
        "comparisons.nearest_result": "Nearest",
        "comparisons.pair": "compare",
        "comparisons.pair_result": "Comparison",
        "comparisons.seeds": "seeds",
        "comparisons.seeds_result": "SeedComparison",
        "comparisons.span": "SpanOverlap span",
        "comparisons.splitting": "SplitMap split",
        "comparisons.within": "WithinComparison within",
        "cost.estimate": "estimate",
        "dictionary": "Dictionary",
        "distributed": "settings",
        "embedding.embedding": "Embedding umap",
        "embedding.neighbors": "exact_neighbors",
        "embedding.projection": "Projection project",
        "embedding.region_file": "read_shapes",
        "explorer.explore": "explore",
        "io.labels": "Labels",
        "io.progress": "progress_bars",
        "labels.label_file": "read_labels",
        "labels.tokens": "TokenReading read_tokens",
        "labels.unembedding": "Unembedding read_unembedding",
        "nulls": "expected_max_cosine random_directions",
        "pairwise.mapping": "mapped",
        "pairwise.matching_result": "Matching",
        "plots": "plots",
        "results.store": "read save",
        "results.wandb_log": "log_wandb",
        "sources": "SourceError as_dictionary demos fetch load neuronpedia_url runs similar_runs",
    }.items()
    for name in names.split()
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604  (names resolved by __getattr__)

if TYPE_CHECKING:
    from sae_geometry import plots
    from sae_geometry.comparisons.by_index import IndexComparison, compare_by_index
    from sae_geometry.comparisons.drift import Drift, drift
    from sae_geometry.comparisons.encoder_agreement import Agreement, agreement
    from sae_geometry.comparisons.flow import flow
    from sae_geometry.comparisons.flow_result import Flow
    from sae_geometry.comparisons.ground_truth import GroundTruth, truth
    from sae_geometry.comparisons.match_report import MatchReport, match
    from sae_geometry.comparisons.nearest import nearest
    from sae_geometry.comparisons.nearest_result import Nearest
    from sae_geometry.comparisons.pair import compare
    from sae_geometry.comparisons.pair_result import Comparison
    from sae_geometry.comparisons.seeds import seeds
    from sae_geometry.comparisons.seeds_result import SeedComparison
    from sae_geometry.comparisons.span import SpanOverlap, span
    from sae_geometry.comparisons.splitting import SplitMap, split
    from sae_geometry.comparisons.within import WithinComparison, within
    from sae_geometry.cost.estimate import estimate
    from sae_geometry.dictionary import Dictionary
    from sae_geometry.distributed import settings
    from sae_geometry.embedding.embedding import Embedding, umap
    from sae_geometry.embedding.neighbors import exact_neighbors
    from sae_geometry.embedding.projection import Projection, project
    from sae_geometry.embedding.region_file import read_shapes
    from sae_geometry.explorer.explore import explore
    from sae_geometry.io.labels import Labels
    from sae_geometry.io.progress import progress_bars
    from sae_geometry.labels.label_file import read_labels
    from sae_geometry.labels.tokens import TokenReading, read_tokens
    from sae_geometry.labels.unembedding import Unembedding, read_unembedding
    from sae_geometry.nulls import expected_max_cosine, random_directions
    from sae_geometry.pairwise.mapping import mapped
    from sae_geometry.pairwise.matching_result import Matching
    from sae_geometry.results.store import read, save
    from sae_geometry.results.wandb_log import log_wandb
    from sae_geometry.sources import SourceError, as_dictionary, demos, fetch, load, neuronpedia_url, runs, similar_runs


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
