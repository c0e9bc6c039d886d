"""UMAP backends: lay out a graph of exact neighbors with our optimizer or umap-learn on a CPU, or cuML on a GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from sae_geometry.embedding.neighbors import Neighbors
from sae_geometry.embedding.optimizer import (
    boxed,
    curve_of,
    epochs_for,
    fuzzy_weights,
    import_umap,
    optimize,
    spectral_start,
)
from sae_geometry.kernels.types import Progress

Backend = Literal["auto", "numba", "umap-learn", "cuml"]
CUML_MINIMUM = (25, 8)


def lay_out(
    points: torch.Tensor,
    graph: Neighbors,
    engine: str,
    *,
    min_dist: float,
    seeds: Sequence[int],
    n_epochs: int | None,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """Return one layout of a precomputed neighbor graph per seed, each float32 [n, 2].

    Args:
        points: float32 unit rows [n, d]; the engine "numba" uses only the graph.
        seeds: random seeds, one per layout.
    """
    if engine == "numba":
        return _numba(graph, min_dist, seeds, n_epochs, progress)
    run = _cuml if engine == "cuml" else _umap_learn
    how = {"n_neighbors": graph.indices.shape[1], "min_dist": min_dist, "metric": "cosine", "n_epochs": n_epochs}
    placed = []
    for seed in seeds:
        placed.append(run(points, graph, **how, random_state=seed))
        if progress is not None:
            progress(len(placed) / len(seeds))
    return placed


def choose_backend(backend: Backend) -> tuple[str, str, str]:
    """Return (engine, version, reason) of the requested backend; "auto" is cuML if it can run, else numba.

    cuML needs a GPU and version ≥ 25.08. numba is umap-learn's weights, a spectral start and our threaded optimizer.

    Raises:
        ValueError: an unknown backend, or cuML is requested but cannot run.
    """
    if backend not in ("auto", "numba", "umap-learn", "cuml"):
        raise ValueError(f"backend must be auto, numba, umap-learn or cuml; got {backend!r}")
    version = _version("cuml-cu13") or _version("cuml-cu12") or _version("cuml")
    new_enough = version is not None and tuple(int(p) for p in version.split(".")[:2]) >= CUML_MINIMUM
    importable = importlib.util.find_spec("cuml") is not None
    usable = torch.cuda.is_available() and new_enough and importable
    obstacle = (
        "there is no CUDA GPU"
        if not torch.cuda.is_available()
        else "cuML is not installed (pip install 'sae-geometry[cu13]')"
        if version is None or not importable
        else f"cuML {version} is older than 25.08, the first version with a reliable cosine metric"
    )
    if backend == "cuml" and not usable:
        raise ValueError(f"backend cuml cannot run here: {obstacle}; use backend='numba'")
    if usable and backend in ("auto", "cuml"):
        return "cuml", str(version), "requested" if backend == "cuml" else "a GPU and cuML are available"
    learn = _version("umap-learn") or "?"
    if backend == "umap-learn":
        return "umap-learn", learn, "requested"
    why = "requested" if backend == "numba" else obstacle
    return "numba", f"{_version('numba')}, weights by umap-learn {learn}", why


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numba(
    graph: Neighbors, min_dist: float, seeds: Sequence[int], n_epochs: int | None, progress: Progress | None
) -> list[np.ndarray]:
    weights = fuzzy_weights(graph)
    start, curve, epochs = spectral_start(weights), curve_of(min_dist), n_epochs or epochs_for(len(graph.indices))
    placed: list[np.ndarray] = []
    for seed in seeds:

        def tick(share: float) -> None:
            if progress is not None:
                progress((len(placed) + share) / len(seeds))

        placed.append(
            optimize(
                weights, boxed(start, seed), curve, n_epochs=epochs, seed=seed, threads=torch.get_num_threads(),
                progress=tick,
            )
        )  # fmt: skip
    return placed


def _umap_learn(points: torch.Tensor, graph: Neighbors, **how: Any) -> np.ndarray:
    reducer = import_umap().UMAP(
        **how,
        n_jobs=1,
        precomputed_knn=(graph.indices.copy(), graph.distances.copy()),  # umap-learn overwrites its input.
        force_approximation_algorithm=True,  # Otherwise, below 4,096 points, the graph is ignored.
        init="spectral" if len(points) > 3 else "random",
    )
    with warnings.catch_warnings():
        # The missing search index would only be needed to transform new points.
        warnings.filterwarnings("ignore", message=".*knn_search_index.*")
        return np.asarray(reducer.fit_transform(points.cpu().numpy()), dtype=np.float32)


def _cuml(points: torch.Tensor, graph: Neighbors, **how: Any) -> np.ndarray:
    import cuml.manifold
    import cupy

    precomputed = cupy.asarray(graph.indices), cupy.asarray(graph.distances)
    reducer = cuml.manifold.UMAP(**how, precomputed_knn=precomputed, output_type="numpy")
    data = cupy.from_dlpack(points.detach().contiguous().cuda())
    return np.asarray(reducer.fit_transform(data), dtype=np.float32)
