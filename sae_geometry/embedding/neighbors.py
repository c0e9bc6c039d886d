"""Exact cosine neighbors of one or several sets of points, computed by sweeps: the graph behind a UMAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int, Int64

from sae_geometry.kernels.sweep import MAX_K, listing_sweep
from sae_geometry.kernels.topk_merge import Lists, merge_into, no_lists
from sae_geometry.kernels.types import Best, Progress, Sweep
from sae_geometry.matching.defaults import MOST_RUNS


@dataclass(frozen=True)
class Neighbors:
    """Exact cosine neighbors of every point, starting with the point itself.

    Attributes:
        indices: int64 [n, k]; column 0 is the point itself, the rest by (cosine descending, index ascending).
        distances: float32 [n, k], max(1 − cosine, 0), ascending; column 0 exactly 0.
    """

    indices: Int[np.ndarray, "n k"]
    distances: Float[np.ndarray, "n k"]

    def first(self, k: int) -> Neighbors:
        """Return a copy with the first k neighbors of each point."""
        return Neighbors(self.indices[:, :k].copy(), self.distances[:, :k].copy())


def exact_neighbors(points: Float[torch.Tensor, "n d"], k: int, progress: Progress | None = None) -> Neighbors:
    """Return the k exact cosine neighbors of every unit row, with the row itself first.

    A row is identified by its index, so it comes first even among duplicates at distance 0.

    Args:
        points: float32 unit rows [n, d].
        k: number of neighbors including the row itself, 1…min(n, 64).
        progress: called with the completed fraction.

    Example:
        >>> import torch
        >>> from sae_geometry.embedding.neighbors import exact_neighbors
        >>> exact_neighbors(torch.eye(3), 2).indices.tolist()
        [[0, 1], [1, 0], [2, 0]]
    """
    return joint_neighbors([points], k, progress)[0]


def joint_neighbors(
    parts: Sequence[Float[torch.Tensor, "_ d"]], k: int, progress: Progress | None = None
) -> tuple[Neighbors, Mapping[tuple[int, int], Sweep]]:
    """Return `exact_neighbors` of the concatenated parts, and the two-sided sweep of part r against part s, r < s.

    Sweeping every part and every pair of parts costs as much as one sweep of all points.
    """
    sizes = [len(p) for p in parts]
    *starts, n = np.cumsum([0, *sizes]).tolist()
    if not 1 <= k <= min(n, MAX_K):
        raise ValueError(f"k (the number of neighbors, with the point itself) must be in 1…{min(n, MAX_K)}; got {k}")
    width = max(k - 1, 1)
    lists = no_lists(n, width)
    done, total = 0.0, sum(s * s / 2 for s in sizes) + sum(a * b for a, b in combinations(sizes, 2))

    def piece(work: float) -> Progress | None:
        nonlocal done
        before, done = done, done + work
        return None if progress is None else lambda share: progress((before + share * work) / total)

    for r, part in enumerate(parts):
        found = listing_sweep(part, None, width, progress=piece(sizes[r] ** 2 / 2))
        _merge(lists, starts[r], found.rows, starts[r])
    pairs = {}
    for r, s in combinations(range(len(parts)), 2):
        found = listing_sweep(parts[r], parts[s], width, progress=piece(float(sizes[r] * sizes[s])))
        assert found.cols is not None
        _merge(lists, starts[r], found.rows, starts[s])
        _merge(lists, starts[s], found.cols, starts[r])
        pairs[r, s] = found
    _, cosine, index = lists
    indices, distances = np.empty((n, k), dtype=np.int64), np.zeros((n, k), dtype=np.float32)
    indices[:, 0], indices[:, 1:] = np.arange(n), index[:, : k - 1]
    distances[:, 1:] = np.maximum(1.0 - cosine[:, : k - 1], 0.0)
    return Neighbors(indices, distances), pairs


def neighborhoods(
    parts: Sequence[Float[torch.Tensor, "_ d"]],
    points: Float[torch.Tensor, "n d"],
    kept: Int64[torch.Tensor, " m"],
    k: int,
    progress: Progress | None = None,
) -> tuple[Neighbors, Neighbors, Mapping[tuple[int, int], Sweep]]:
    """Return the neighbors of all points, the neighbors of distinct directions, and the sweeps of pairs of parts.

    `kept` has the index of one point per distinct direction, and at least k entries.
    """
    if len(kept) < len(points):
        wide = exact_neighbors(points[kept], k, progress)
        return exact_neighbors(points, min(k, len(points))), wide, {}
    if len(parts) > MOST_RUNS:
        near = exact_neighbors(points, k, progress)
        return near, near, {}
    near, pairs = joint_neighbors(parts, k, progress)
    return near, near, pairs


def _merge(lists: Lists, at: int, found: Best, start: int) -> None:
    """Merge `found`, whose indices count from point `start`, into the lists that begin at point `at`."""
    score, cosine, index = (t.cpu().numpy() for t in (found.score, found.cosine, found.index))
    merge_into(lists, (score, cosine, np.where(index >= 0, index + start, -1)), at)
