"""Lettered regions of a picture: where they are, whose latents lie there, and whether that is more than chance.

The end-to-end paper drew boxes A–H into its UMAP by hand and looked at what lay in each. Here they are found (HDBSCAN,
on the picture or on the neighbour graph) or read from a file, and each comes with its counts and a test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from sae_geometry.embedding.neighbors import Neighbors
from sae_geometry.embedding.region_file import Shape
from sae_geometry.io.formatting import aligned, ends, read_only

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

On = Literal["picture", "neighbors"]
MOSTLY = 2 / 3
ALPHA = 0.05
_MIN_SAMPLES = 15
_PICTURE_K = 30


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """One region of a picture.

    Attributes:
        letter: "A" for the largest, and so on.
        members: int64 [n], the positions of its points in the embedding, ascending.
        counts: int64 [runs], how many of its points each run has.
        shares: float64 [runs], each run's share of it if all runs had equally many latents:
            (c_r / N_r) / Σ_s (c_s / N_s).
        p_values: float64 [runs], two-sided binomial test of c_r against the run's share N_r / N of all points.
        q_values: float64 [runs], the same after Benjamini–Hochberg over all regions and runs.
        verdict: "mostly NAME" where q ≤ 0.05 and the run's share is at least two thirds; "mixed" otherwise; "" for one
            run alone.
        center: mean of its points, (x, y).
        outline: corners of a polygon around it, as drawn: the convex hull of its points, or the one given.
    """

    letter: str
    members: np.ndarray
    counts: np.ndarray
    shares: np.ndarray
    p_values: np.ndarray
    q_values: np.ndarray
    verdict: str
    center: tuple[float, float]
    outline: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, read_only(value))

    @property
    def size(self) -> int:
        """Number of points."""
        return len(self.members)


@dataclass(frozen=True, eq=False, repr=False)
class Regions:
    """The regions of a picture, largest first (in the order given, for those given by hand).

    Attributes:
        regions: each a `Region`.
        names: the runs.
        totals: int64 [runs], how many points each run has in all.
        letters: object [N], the region of each point; None outside all.
        how: in words, how they were found.
        params: the same as plain values.
    """

    regions: tuple[Region, ...]
    names: tuple[str, ...]
    totals: np.ndarray
    letters: np.ndarray
    how: str
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "letters", read_only(self.letters))

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def share_inside(self) -> float:
        """Share of all points that lie in a region."""
        return float(np.mean([letter is not None for letter in self.letters]))

    def to_pandas(self) -> pd.DataFrame:
        """One row a region: region, size, verdict, x, y, and count, share, p and q of each run as `count:NAME`, …"""
        import pandas as pd

        rows = []
        for region in self.regions:
            row: dict[str, Any] = {
                "region": region.letter, "size": region.size, "verdict": region.verdict,
                "x": region.center[0], "y": region.center[1],
            }  # fmt: skip
            for i, name in enumerate(self.names):
                row[f"count:{name}"] = int(region.counts[i])
                row[f"share:{name}"] = float(region.shares[i])
                row[f"p:{name}"] = float(region.p_values[i])
                row[f"q:{name}"] = float(region.q_values[i])
            rows.append(row)
        return pd.DataFrame(rows)

    def test_in_words(self) -> str:
        """What the verdicts rest on."""
        return (
            f"two-sided binomial test of each run's count against its share of all points, Benjamini–Hochberg over "
            f"regions and runs; mostly: q ≤ {ALPHA:g} and at least {MOSTLY:.0%} at equal sizes. Latents are not "
            "independent draws, so p is a yardstick, not a probability"
        )

    def table(self) -> str:
        """The regions as text, one line each; of many runs the first and the last."""
        if not self.regions:
            return f"no regions ({self.how})"
        head = ["region", "latents", *ends(self.names), "verdict"]
        rows = [
            [
                r.letter,
                f"{r.size:,}",
                *ends([f"{c:,} ({s:.0%})" for c, s in zip(r.counts, r.shares, strict=True)]),
                r.verdict,
            ]
            for r in self.regions
        ]
        note = f"{len(self)} regions ({self.how}) hold {self.share_inside:.0%} of the latents"
        if len(self.names) > 1:
            note += "; in brackets the share at equal sizes"
        return "\n".join([note, *aligned([head, *rows])])

    def __repr__(self) -> str:
        return self.table()


def find_regions(
    coords: Float[np.ndarray, "n 2"],
    owner: Int[np.ndarray, " n"],
    names: Sequence[str],
    *,
    distances: csr_array | None = None,
    min_size: int | None = None,
    on: On = "picture",
) -> Regions:
    """Regions found by HDBSCAN: the leaves of its tree with at least `min_size` points.

    Args:
        coords: float [n, 2].
        owner: int [n], index into `names`.
        names: the runs.
        distances: sparse distances [n, n] to cluster by, `graph_distances` of the neighbours; None clusters by the
            distances in the picture.
        min_size: fewest points of a region; max(10, n / 100) if None.
        on: what `distances` are, in words.

    Returns:
        Regions, largest first; points in none of them have no letter. Scattered points belong nowhere: they are noise
        to HDBSCAN.
    """
    n = len(coords)
    size = max(10, n // 100) if min_size is None else min_size
    if size < 2:
        raise ValueError(f"a region has at least two points; got min_size = {size}")
    how = f"HDBSCAN on the {on}, at least {size:,} latents"
    params = {"method": "hdbscan", "on": on, "min_size": size, "min_samples": min(_MIN_SAMPLES, size), "leaves": True}
    labels = np.full(n, -1)
    if n > size:
        labels = _hdbscan(picture_distances(coords) if distances is None else distances, size)
    sizes = np.bincount(labels[labels >= 0])
    first = [int(np.flatnonzero(labels == i)[0]) for i in range(len(sizes))]
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], first[i]))
    members = [np.flatnonzero(labels == i) for i in order]
    outlines = [_hull(coords[m]) for m in members]
    return _tested(
        coords, owner, names, members, outlines, [letters(i) for i in range(len(members))], how=how, params=params
    )


def given_regions(
    coords: Float[np.ndarray, "n 2"], owner: Int[np.ndarray, " n"], names: Sequence[str], *, shapes: Sequence[Shape]
) -> Regions:
    """Regions given by hand. A point on an edge may fall to either side; one in two shapes belongs to the first."""
    from matplotlib.path import Path as Outline

    taken = np.zeros(len(coords), dtype=bool)
    members = []
    for shape in shapes:
        inside = Outline(shape.polygon).contains_points(coords) & ~taken
        taken |= inside
        members.append(np.flatnonzero(inside))
    params = {"method": "given", "shapes": len(shapes)}
    return _tested(
        coords, owner, names, members, [s.polygon for s in shapes], [s.letter for s in shapes],
        how="given by hand", params=params,
    )  # fmt: skip


def picture_distances(coords: Float[np.ndarray, "n 2"]) -> csr_array:
    """Euclidean distances of every point to its 30 nearest in the picture, sparse [n, n]."""
    from scipy.spatial import cKDTree

    k = min(_PICTURE_K + 1, len(coords))
    near, index = cKDTree(coords).query(coords, k=k)
    return _sparse(index, near)


def graph_distances(neighbors: Neighbors) -> csr_array:
    """Cosine distances of every point to its neighbours, sparse [n, n]."""
    return _sparse(neighbors.indices, neighbors.distances.astype(np.float64))


def letters(i: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    text = ""
    i += 1
    while i:
        i, place = divmod(i - 1, 26)
        text = chr(ord("A") + place) + text
    return text


def _tested(
    coords: np.ndarray,
    owner: np.ndarray,
    names: Sequence[str],
    members: Sequence[np.ndarray],
    outlines: Sequence[Sequence[tuple[float, float]]],
    called: Sequence[str],
    *,
    how: str,
    params: Mapping[str, Any],
) -> Regions:
    from scipy.stats import false_discovery_control

    totals = np.bincount(owner, minlength=len(names)).astype(np.int64)
    tallies = [np.bincount(owner[m], minlength=len(names)) for m in members]
    counts = np.array(tallies, dtype=np.int64).reshape(-1, len(names))
    p = _binomial(counts, totals)
    q = false_discovery_control(p.ravel()).reshape(p.shape) if p.size else p
    rate = counts / totals
    shares = rate / np.maximum(rate.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    marks = np.full(len(coords), None, dtype=object)
    found = []
    for i, (letter, m) in enumerate(zip(called, members, strict=True)):
        marks[m] = letter
        x, y = coords[m].astype(np.float64).mean(axis=0) if len(m) else np.mean(outlines[i], axis=0)
        center, outline = (float(x), float(y)), tuple(outlines[i])
        verdict = _verdict(names, shares[i], q[i])
        found.append(Region(letter, m, counts[i], shares[i], p[i], q[i], verdict, center, outline))
    return Regions(tuple(found), tuple(names), totals, marks, how, params)


def _verdict(names: Sequence[str], shares: np.ndarray, q: np.ndarray) -> str:
    if len(names) == 1:
        return ""
    largest = int(np.argmax(shares))
    return f"mostly {names[largest]}" if shares[largest] >= MOSTLY and q[largest] <= ALPHA else "mixed"


def _binomial(counts: Int[np.ndarray, "regions runs"], totals: Int[np.ndarray, " runs"]) -> np.ndarray:
    from scipy.stats import binomtest

    share = totals / totals.sum()
    p = np.ones(counts.shape)
    for (i, r), count in np.ndenumerate(counts):
        size = int(counts[i].sum())
        if size and len(totals) > 1:
            p[i, r] = binomtest(int(count), size, float(share[r])).pvalue
    return p


def _hdbscan(distances: csr_array, min_size: int) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    fewest = int(np.diff(distances.indptr).min())
    model = HDBSCAN(
        min_cluster_size=min_size,
        min_samples=max(1, min(_MIN_SAMPLES, min_size, fewest)),
        metric="precomputed",
        cluster_selection_method="leaf",
        copy=True,
    )
    return np.asarray(model.fit_predict(_connected(distances)))


def _sparse(index: np.ndarray, distances: np.ndarray) -> csr_array:
    """Symmetric distances from lists of neighbours; coincident points lie a hair apart, since zeros are not stored."""
    from scipy.sparse import csr_array

    n, k = index.shape
    rows = np.repeat(np.arange(n), k)
    apart = rows != index.ravel()
    hair = 1e-9 * max(float(distances.max()), 1e-9)
    values = np.maximum(distances.ravel(), hair)[apart]
    # The larger of the two where only one lists the other would be 0: take whichever is there.
    at = (rows[apart].astype(np.int32), index.ravel()[apart].astype(np.int32))  # all that scipy before 1.17 takes
    half = csr_array((values, at), shape=(n, n))
    return csr_array(half.maximum(half.T))


def _connected(distances: csr_array) -> csr_array:
    """The same graph with its components joined by edges longer than any: HDBSCAN asks for one component."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components

    n_parts, part = connected_components(distances, directed=False)
    if n_parts == 1:
        return distances
    first = np.array([np.flatnonzero(part == i)[0] for i in range(n_parts)], dtype=np.int32)  # as in `_sparse`
    far = np.full(n_parts - 1, 4.0 * float(distances.max()))
    bridges = coo_array((far, (first[:-1], first[1:])), shape=distances.shape)
    return csr_array(distances + bridges + bridges.T)


def _hull(points: np.ndarray) -> tuple[tuple[float, float], ...]:
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # fewer than three points, or all on a line
        corners = np.array([points.min(axis=0), points.max(axis=0)])
    return tuple((float(x), float(y)) for x, y in corners)
