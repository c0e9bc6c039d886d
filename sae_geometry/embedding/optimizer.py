"""UMAP steps after the neighbor search: umap-learn's weights, a spectral start, and a multithreaded optimizer.

umap-learn's spectral start asks ARPACK for the smallest eigenvalues of the Laplacian, which can take minutes on a
disconnected graph such as a dictionary's, and its optimizer is reproducible only on one thread. Weights here are
bit-identical to umap-learn's. The start uses eigenvectors of the largest eigenvalues of the normalized adjacency, after
a small weight between all pairs has connected the graph (regularized spectral clustering: Qin & Rohe 2013, Zhang & Rohe
2018). The optimizer applies umap-learn's updates one vertex at a time.
"""

from __future__ import annotations

import contextlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from sae_geometry.embedding.neighbors import Neighbors
from sae_geometry.kernels.types import Progress

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_NEGATIVES = 5
_DENSE = 256  # maximum number of points for which all eigenvectors are computed
_FEWEST, _MOST = 64, 512  # minimum and maximum number of vertices per block


@cache
def import_umap() -> Any:
    """Return umap-learn's module, imported without its warnings about TensorFlow and notebook widgets.

    The edge-weighting loops are cached on disk if possible; compiling them takes ten seconds per process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import umap.umap_ as module
    for loop in (module.smooth_knn_dist, module.compute_membership_strengths):
        with contextlib.suppress(RuntimeError):  # There may be no writable folder for the cache.
            loop.enable_caching()
    return module


def fuzzy_weights(graph: Neighbors) -> csr_array:
    """Return UMAP's symmetric edge weights in (0, 1] from umap-learn, sparse float32 [n, n]."""
    from scipy.sparse import csr_array

    n, k = graph.indices.shape
    made = import_umap().fuzzy_simplicial_set(
        np.empty((n, 1), dtype=np.float32),  # Only the number of points matters.
        k,
        np.random.RandomState(0),
        "cosine",
        knn_indices=graph.indices.copy(),  # umap-learn overwrites its input.
        knn_dists=graph.distances.copy(),
    )[0]
    return csr_array(made)


def curve_of(min_dist: float) -> Float[np.ndarray, " 2"]:
    """Return UMAP's curve parameters a and b for a minimum distance, float32 [2]."""
    return np.array(import_umap().find_ab_params(1.0, min_dist), dtype=np.float32)


def epochs_for(n: int) -> int:
    """Return UMAP's default number of epochs: 500 up to 10,000 points, 200 beyond."""
    return 500 if n <= 10_000 else 200


def spectral_start(weights: csr_array) -> Float[np.ndarray, "n 2"]:
    """Return the second and third eigenvectors of the regularized normalized adjacency, float64 [n, 2].

    Signs are fixed, and the result does not depend on the number of threads.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
    from threadpoolctl import threadpool_limits

    n = weights.shape[0]
    degree = np.asarray(weights.sum(axis=0), dtype=np.float64).ravel()
    tau = float(degree.mean())
    scale = 1 / np.sqrt(degree + tau)

    def times(v: np.ndarray) -> np.ndarray:
        scaled = scale * v.ravel()
        return scale * (weights @ scaled + tau / n * scaled.sum())

    with threadpool_limits(1):
        if n <= _DENSE:
            vectors = np.linalg.eigh(scale[:, None] * (weights.toarray() + tau / n) * scale)[1][:, -3:]
        else:
            start = np.random.default_rng(0).standard_normal(n)
            try:
                values, vectors = eigsh(
                    LinearOperator((n, n), matvec=times, dtype=np.float64), 3, which="LA", tol=1e-4, v0=start
                )
                vectors = vectors[:, np.argsort(values)]
            except ArpackNoConvergence:
                vectors = np.random.default_rng(0).standard_normal((n, 3))
    two = vectors[:, [1, 0]] if vectors.shape[1] == 3 else np.random.default_rng(0).standard_normal((n, 2))
    peak = two[np.argmax(np.abs(two), axis=0), [0, 1]]
    return np.asarray(two * np.where(peak < 0, -1.0, 1.0))


def boxed(start: Float[np.ndarray, "n 2"], seed: int) -> Float[np.ndarray, "n 2"]:
    """Return a start scaled to [0, 10]², with a little seeded noise that separates coincident points, as in UMAP."""
    reach = float(np.abs(start).max()) or 1.0
    noisy = start * (10 / reach) + np.random.default_rng(seed).normal(scale=1e-4, size=start.shape)
    span = np.ptp(noisy, axis=0)
    return (10 * (noisy - noisy.min(axis=0)) / np.where(span > 0, span, 1.0)).astype(np.float32)


def optimize(
    weights: csr_array,
    start: Float[np.ndarray, "n 2"],
    curve: Float[np.ndarray, " 2"],
    *,
    n_epochs: int,
    seed: int,
    threads: int,
    fixed: int = 0,
    step: float = 1.0,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n 2"]:
    """Return the layout after stochastic gradient steps from `start`, bit-identical for any number of threads.

    Args:
        weights: symmetric edge weights or, if `fixed` > 0, only the edges from moving points to fixed points.
        n_epochs: number of epochs; edges weaker than the strongest by more than this factor are never sampled.
        fixed: number of leading points that do not move.
        step: step size of the first epoch; it decreases to 0.
    """
    from sae_geometry.embedding.optimizer_loops import move_vertices

    kept = weights.copy().astype(np.float32)
    strongest = float(kept.data.max()) if kept.nnz else 1.0
    kept.data[kept.data < strongest / n_epochs] = 0
    kept.eliminate_zeros()
    graph = (kept.indptr.astype(np.int64), kept.indices.astype(np.int32), kept.data / np.float32(strongest))
    n = len(start)
    # A block sees the updates of earlier blocks, so its size must not depend on the number of threads.
    block = int(np.clip((n - fixed) // 8, _FEWEST, _MOST))
    here, there = np.array(start, dtype=np.float32, order="C"), np.array(start, dtype=np.float32, order="C")
    threads = max(1, min(threads, block // 32))
    with ThreadPoolExecutor(threads) as pool:
        for epoch in range(n_epochs):
            alpha = step * (1 - epoch / n_epochs)

            def move(ends: tuple[int, int], epoch: int = epoch, alpha: float = alpha) -> None:
                move_vertices(*ends, graph, here, there, fixed, curve, epoch, alpha, np.uint64(seed), _NEGATIVES)

            for begin in range(fixed, n, block):
                end = min(begin + block, n)
                cuts = np.linspace(begin, end, threads + 1).astype(int).tolist()
                pieces = list(pairwise(cuts))
                if threads == 1:
                    move(pieces[0])
                else:
                    list(pool.map(move, pieces))
                here[begin:end] = there[begin:end]
            if progress is not None:
                progress((epoch + 1) / n_epochs)
    return here


def place(
    neighbors: Int[np.ndarray, "m k"],
    distances: Float[np.ndarray, "m k"],
    there: Float[np.ndarray, "n 2"],
    curve: Float[np.ndarray, " 2"],
    *,
    n_epochs: int,
    seed: int,
    threads: int,
) -> Float[np.ndarray, "m 2"]:
    """Return positions for new points in a fixed layout, float32 [m, 2], as umap-learn's `transform` does.

    Each point starts at the mean of its neighbors, weighted by umap-learn's own functions, and takes optimizer steps of
    a quarter of the usual length while the layout stays fixed. n_epochs = 0 returns the mean itself. `distances` are
    cosine distances to the neighbors, ascending.
    """
    from scipy.sparse import csr_array

    (m, k), n = neighbors.shape, len(there)
    if m == 0:
        return np.empty((0, 2), dtype=np.float32)
    umap = import_umap()
    near = np.ascontiguousarray(distances, dtype=np.float32)
    sigmas, rhos = umap.smooth_knn_dist(near, float(k), local_connectivity=0.0)
    strength = umap.compute_membership_strengths(
        neighbors.astype(np.int32), near, sigmas, rhos, return_dists=False, bipartite=True
    )[2].reshape(m, k)
    weight = strength.astype(np.float64)
    weight /= weight.sum(axis=1, keepdims=True)
    start = (weight[:, :, None] * there[neighbors].astype(np.float64)).sum(axis=1).astype(np.float32)
    if not n_epochs:
        return start
    indptr = np.r_[np.zeros(n, dtype=np.int64), np.arange(0, m * k + 1, k)]
    edges = csr_array((strength.ravel(), neighbors.ravel(), indptr), shape=(n + m, n + m))
    moved = optimize(
        edges, np.concatenate([there, start]), curve, n_epochs=n_epochs, seed=seed, threads=threads, fixed=n, step=0.25
    )
    return moved[n:]
