"""Lettered regions of a layout, with counts per run and a test against the runs' overall shares.

The end-to-end paper drew boxes A–H by hand and inspected their latents. Here, HDBSCAN finds the regions
in the layout or in the neighbor graph, or a file gives their outlines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.neighbors import Neighbors
from sae_geometry.embedding.region_file import Shape
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted, ends
from sae_geometry.io.frozen import freeze
from sae_geometry.labels.regions import Mark, region_marks

if TYPE_CHECKING:
    from scipy.sparse import csr_array

On = Literal["picture", "neighbors"]
MOSTLY = 2 / 3
ALPHA = 0.05
_MIN_SAMPLES = 15
_PICTURE_K = 30


@dataclass(frozen=True, eq=False, repr=False)
class Region:
    """One region of a layout.

    Attributes:
        letter: "A" for the largest, and so on.
        members: int64 [n], indices of its points in the embedding, ascending.
        counts: int64 [runs], its points per run.
        shares: float64 [runs], share of each run, adjusted for the sizes of the runs: (c_r / N_r) / Σ_s (c_s / N_s).
        p_values: float64 [runs], two-sided binomial test of c_r against the run's share N_r / N of all points.
        q_values: float64 [runs], p-values adjusted by Benjamini–Hochberg over all regions and runs.
        verdict: "mostly NAME" if q ≤ 0.05 and the run's share is at least two thirds; "mixed" otherwise; "" for a
            single run.
        center: mean of its points, (x, y).
        outline: corners of its polygon: the convex hull of its points, or the given outline.
        marks: tokens that distinguish the region from the other regions, if the runs have labels.
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
    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def size(self) -> int:
        """Return the number of points."""
        return len(self.members)


@dataclass(frozen=True, eq=False, repr=False)
class Regions:
    """Regions of a layout: the largest first if found by clustering, in the given order if outlined by hand.

    Attributes:
        totals: int64 [runs], points per run.
        letters: object [N], letter of each point's region; None outside all regions.
        how: how the regions were found, in words.
        params: method by which the regions were found, and its parameters.
    """

    regions: tuple[Region, ...]
    names: tuple[str, ...]
    totals: np.ndarray
    letters: np.ndarray
    how: str
    params: Mapping[str, Any]

    def __post_init__(self) -> None:
        freeze(self)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def share_inside(self) -> float:
        """Return the share of points inside any region."""
        return float(np.mean([letter is not None for letter in self.letters]))

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per region: region, size, verdict, x, y, and `count:NAME`, `share:NAME`, … per run."""
        rows = []
        for region in self.regions:
            row: dict[str, Any] = {
                "region": region.letter, "size": region.size, "verdict": region.verdict,
                "x": region.center[0], "y": region.center[1],
            }  # fmt: skip
            numbers = {"count": region.counts, "share": region.shares, "p": region.p_values, "q": region.q_values}
            row |= {f"{what}:{name}": of_run[i].item() for i, name in enumerate(self.names)
                    for what, of_run in numbers.items()}  # fmt: skip
            rows.append(row)
        return pd.DataFrame(rows)

    def test_in_words(self) -> str:
        """Return a description of the test behind the verdicts."""
        return (
            "two-sided binomial test of each run's count against its share of all points, Benjamini–Hochberg over "
            f"regions and runs; a region belongs mostly to a run if q ≤ {ALPHA:g} and its share at equal "
            f"sizes is at least {MOSTLY:.0%}. Latents are not independent draws, so p is a yardstick, not a probability"
        )

    def table(self) -> str:
        """Return the regions as text, one per line; of many runs, only the first and the last have columns."""
        if not self.regions:
            return f"no regions ({self.how})"
        tokens = any(r.marks for r in self.regions)
        head = ["region", "latents", *ends(self.names), "verdict", *(["tokens"] if tokens else [])]
        rows = [
            [
                r.letter,
                f"{r.size:,}",
                *ends([f"{c:,} ({s:.0%})" for c, s in zip(r.counts, r.shares, strict=True)]),
                r.verdict,
                *([" ".join(mark.token for mark in r.marks)] if tokens else []),
            ]
            for r in self.regions
        ]
        note = f"{counted(len(self), 'region')} ({self.how}) with {self.share_inside:.0%} of the latents"
        if len(self.names) > 1:
            note += "; in parentheses: share at equal sizes"
        return "\n".join([note, *aligned([head, *rows])])

    @property
    def n_of_one_run(self) -> int:
        """Return the number of regions that belong mostly to one run."""
        return sum(r.verdict.startswith("mostly") for r in self.regions)

    def few_lines(self, most: int) -> list[str]:
        """Return lines about up to `most` regions: first those mostly of one run, then mixed regions, each by size."""
        if not self.regions:
            return [f"  no regions ({self.how})"]
        note = f"  {counted(len(self), 'region')} with {self.share_inside:.0%} of the latents"
        note += f"; mostly of one run: {self.n_of_one_run:,}" if len(self.names) > 1 else ""
        first = sorted(self.regions, key=lambda r: not r.verdict.startswith("mostly"))[:most]
        rows = [("look at", "latents", "runs", "")]
        for r in first:
            run = int(np.argmax(r.shares))
            whose = f"{r.shares[run]:.0%} {shown(self.names[run], 24)}" if len(self.names) > 1 else ""
            marks = " ".join(shown(mark.token, 10) for mark in r.marks[:3])
            rows.append((r.letter, f"{r.size:,}", f"{whose}, mixed" if r.verdict == "mixed" else whose, marks))
        where = f"  explorer.html#region={first[0].letter} opens at {first[0].letter} (write it with --html)"
        return [note, *(f"  {line}" for line in aligned(rows)), where]

    def __repr__(self) -> str:
        return self.table()


def marked(found: Regions, dictionaries: Sequence[Dictionary], owner: np.ndarray, latent_id: np.ndarray) -> Regions:
    """Return the regions with the tokens that distinguish them, given the run and id of each point, int64 [N]."""
    marks = region_marks(found.letters, dictionaries, owner, latent_id)
    return replace(found, regions=tuple(replace(r, marks=marks.get(r.letter, ())) for r in found.regions))


def find_regions(
    coords: Float[np.ndarray, "n 2"],
    owner: Int[np.ndarray, " n"],
    names: Sequence[str],
    *,
    distances: csr_array | None = None,
    min_size: int | None = None,
    on: On = "picture",
) -> Regions:
    """Return HDBSCAN's regions, the largest first: the leaves of its tree with at least `min_size` points.

    Noise points have no letter.

    Args:
        owner: int [n], index into `names`.
        distances: sparse distances [n, n] to cluster by, such as `graph_distances`; None clusters by distances in the
            layout.
        min_size: minimum number of points of a region; max(10, n / 100) if None.
        on: "picture" if `distances` are measured in the layout, else "neighbors"; recorded in the result.
    """
    n = len(coords)
    size = max(10, n // 100) if min_size is None else min_size
    if size < 2:
        raise ValueError(f"min_size must be at least 2; got {size}")
    how = f"HDBSCAN on the {on}, at least {size:,} latents"
    params = {"method": "hdbscan", "on": on, "min_size": size, "min_samples": min(_MIN_SAMPLES, size), "leaves": True}
    labels = np.full(n, -1)
    if n > size:
        labels = _hdbscan(picture_distances(coords) if distances is None else distances, size)
    members = [np.flatnonzero(labels == i) for i in range(labels.max(initial=-1) + 1)]
    members.sort(key=lambda m: (-len(m), m[0]))
    outlines = [_hull(coords[m]) for m in members]
    return _tested(coords, owner, names, members, outlines, map(letters, range(len(members))), how=how, params=params)


def given_regions(
    coords: Float[np.ndarray, "n 2"], owner: Int[np.ndarray, " n"], names: Sequence[str], *, shapes: Sequence[Shape]
) -> Regions:
    """Return one region per outline; a point in several is in the first, and a point on an edge may be in or out."""
    from matplotlib.path import Path as Outline

    taken = np.zeros(len(coords), dtype=bool)
    members = []
    for shape in shapes:
        inside = Outline(shape.polygon).contains_points(coords) & ~taken
        taken |= inside
        members.append(np.flatnonzero(inside))
    outlines, called = [s.polygon for s in shapes], [s.letter for s in shapes]
    params = {"method": "given", "shapes": len(shapes)}
    return _tested(coords, owner, names, members, outlines, called, how="given by hand", params=params)


def picture_distances(coords: Float[np.ndarray, "n 2"]) -> csr_array:
    """Return the Euclidean distances from every point to its 30 nearest in the layout, sparse [n, n]."""
    from scipy.spatial import cKDTree

    k = min(_PICTURE_K + 1, len(coords))
    near, index = cKDTree(coords).query(coords, k=k)
    return _sparse(index, near)


def graph_distances(neighbors: Neighbors) -> csr_array:
    """Return the cosine distances from every point to its neighbors, sparse [n, n]."""
    return _sparse(neighbors.indices, neighbors.distances.astype(np.float64))


def letters(i: int) -> str:
    """Return the letter of region i: A, B, …, Z, AA, AB, …"""
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
    called: Iterable[str],
    *,
    how: str,
    params: Mapping[str, Any],
) -> Regions:
    from scipy.stats import false_discovery_control

    totals, *tallies = (np.bincount(x, minlength=len(names)) for x in (owner, *(owner[m] for m in members)))
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
        center, outline, run = (float(x), float(y)), tuple(outlines[i]), int(np.argmax(shares[i]))
        verdict = f"mostly {names[run]}" if shares[i, run] >= MOSTLY and q[i, run] <= ALPHA else "mixed"
        verdict = verdict if len(names) > 1 else ""
        found.append(Region(letter, m, counts[i], shares[i], p[i], q[i], verdict, center, outline))
    return Regions(tuple(found), tuple(names), totals, marks, how, params)


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
    """Return symmetric sparse distances from neighbor lists, with a tiny distance between coincident points."""
    from scipy.sparse import csr_array

    n, k = index.shape
    rows = np.repeat(np.arange(n), k)
    apart = rows != index.ravel()
    hair = 1e-9 * max(float(distances.max()), 1e-9)
    values = np.maximum(distances.ravel(), hair)[apart]
    # If only one of two points lists the other, the maximum with 0 is the listed distance.
    at = (rows[apart].astype(np.int32), index.ravel()[apart].astype(np.int32))  # SciPy before 1.17 needs int32.
    half = csr_array((values, at), shape=(n, n))
    return csr_array(half.maximum(half.T))


def _connected(distances: csr_array) -> csr_array:
    """Return the graph with its components joined by very long edges, since HDBSCAN requires one component."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components

    n_parts, part = connected_components(distances, directed=False)
    if n_parts == 1:
        return distances
    first = np.array([np.flatnonzero(part == i)[0] for i in range(n_parts)], dtype=np.int32)
    far = np.full(n_parts - 1, 4.0 * float(distances.max()))
    bridges = coo_array((far, (first[:-1], first[1:])), shape=distances.shape)
    return csr_array(distances + bridges + bridges.T)


def _hull(points: np.ndarray) -> tuple[tuple[float, float], ...]:
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # There are fewer than three points, or all lie on a line.
        corners = np.array([points.min(axis=0), points.max(axis=0)])
    return tuple((float(x), float(y)) for x, y in corners)
