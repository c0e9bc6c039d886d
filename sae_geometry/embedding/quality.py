"""Quality of a layout: neighborhood preservation, mixing of the runs, and stability across seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from sae_geometry.embedding.neighbors import Neighbors
from sae_geometry.kernels.screens.products import full_precision

EVIDENCE_SAMPLE = 1000
EVIDENCE_K = 15
WIDE_K = 50


@dataclass(frozen=True)
class Evidence:
    """Quality measures of a layout.

    Attributes:
        k, k_wide: neighborhood sizes, 15 and 50; smaller for fewer than 31 and 101 points.
        n_sampled: number of points for trustworthiness and for preservation at the larger k (all, or a seeded sample of
            1,000).
        trustworthiness, trustworthiness_wide: 1 − 2/(s·k·(2n − 3k − 1)) Σ (rank − k)⁺ over the k neighbors in the
            layout, rank by cosine similarity in the original space (Venna & Kaski 2001); 1 is best.
        neighbor_preservation, neighbor_preservation_wide: mean share of the k nearest in the original space that are
            among the k nearest in the layout.
        mixing_original, mixing_picture: mean share of a point's k neighbors that belong to another dictionary, in the
            original space and in the layout.
        mixing_null: expectation of this share under permuted labels: 1 − Σ n_r(n_r − 1)/(N(N − 1)); nan for one
            dictionary.
        mixing_null_sd_original, mixing_null_sd_picture: exact standard deviation of this share over all permutations,
            for each of the two neighbor graphs.
        mixing_z_original, mixing_z_picture: (share − expected) / standard deviation: negative if runs separate,
            about standard normal if labels are random.
        n_seeds: number of layouts compared, including the one shown; 1 if stability was not measured.
        stability_shift: median distance between a point's positions in two layouts after Procrustes alignment
            (translation, rotation, reflection, scale), relative to the layout's root mean square radius; mean over
            pairs. 0: identical layouts; about 1.2: unrelated layouts.
        stability_overlap: mean share of a point's k neighbors in one layout that are its neighbors in another.
    """

    k: int
    k_wide: int
    n_sampled: int
    trustworthiness: float
    trustworthiness_wide: float
    neighbor_preservation: float
    neighbor_preservation_wide: float
    mixing_original: float
    mixing_picture: float
    mixing_null: float
    mixing_null_sd_original: float
    mixing_null_sd_picture: float
    mixing_z_original: float
    mixing_z_picture: float
    n_seeds: int
    stability_shift: float
    stability_overlap: float

    def lines(self) -> tuple[str, ...]:
        """Return the quality measures as one to three lines of text."""
        near = (
            f"k = {self.k}, {self.k_wide}: neighbors preserved {self.neighbor_preservation:.0%}, "
            f"{self.neighbor_preservation_wide:.0%}; "
            f"trustworthiness {self.trustworthiness:.3f}, {self.trustworthiness_wide:.3f}"
        )
        said = [near]
        if self.n_seeds > 1:
            said.append(
                f"{self.n_seeds} seeds: a point moves by {self.stability_shift:.2f} radii (unrelated: 1.2); "
                f"{self.stability_overlap:.0%} of neighbors stay"
            )
        if not np.isnan(self.mixing_null):
            said.append(
                f"neighbors from another run: {self.mixing_original:.1%} in the original space, "
                f"{self.mixing_picture:.1%} in the layout, {self.mixing_null:.1%} ± "
                f"{max(self.mixing_null_sd_original, self.mixing_null_sd_picture):.1%} if labels were shuffled"
            )
        return tuple(said)


def measure_evidence(
    points: torch.Tensor,
    near: Neighbors,
    coords: Float[np.ndarray, "n 2"],
    owner: Int[np.ndarray, " n"],
    *,
    seed: int,
    others: Sequence[Float[np.ndarray, "n 2"]] = (),
) -> Evidence:
    """Return the quality measures of a layout of unit rows, given their exact neighbors and layouts by other seeds."""
    n = len(owner)
    k = max(1, min(EVIDENCE_K, (n - 1) // 2, near.indices.shape[1] - 1))  # Trustworthiness needs k < n / 2.
    k_wide = max(k, min(WIDE_K, (n - 1) // 2))
    original = near.indices[:, 1 : k + 1]
    picture = picture_neighbors(coords, k_wide)
    sample = np.sort(np.random.default_rng(seed).permutation(n)[:EVIDENCE_SAMPLE])
    trust, trust_wide, kept_wide = _neighborhoods(points, picture, sample, (k, k_wide))
    sizes = np.bincount(owner)
    mixing = [mixing_score(graph, owner) for graph in (original, picture[:, :k])]
    pictures = [coords, *others]
    around = [picture[:, :k], *(picture_neighbors(c, k) for c in others)]
    pairs = [(i, j) for i in range(len(pictures)) for j in range(i)]
    shifts = [procrustes_shift(pictures[i], pictures[j]) for i, j in pairs]
    overlaps = [shared_share(around[i], around[j]) for i, j in pairs]
    return Evidence(
        k=k,
        k_wide=k_wide,
        n_sampled=len(sample),
        trustworthiness=trust,
        trustworthiness_wide=trust_wide,
        neighbor_preservation=shared_share(original, picture[:, :k]),
        neighbor_preservation_wide=kept_wide,
        mixing_original=mixing[0].share,
        mixing_picture=mixing[1].share,
        mixing_null=mixing[0].expected if len(sizes) > 1 else float("nan"),
        mixing_null_sd_original=mixing[0].sd,
        mixing_null_sd_picture=mixing[1].sd,
        mixing_z_original=mixing[0].z,
        mixing_z_picture=mixing[1].z,
        n_seeds=len(pictures),
        stability_shift=float(np.mean(shifts)) if shifts else float("nan"),
        stability_overlap=float(np.mean(overlaps)) if overlaps else float("nan"),
    )


@dataclass(frozen=True)
class Mixing:
    """Share of neighbors from another run, with its mean and standard deviation under permuted labels."""

    share: float
    expected: float
    sd: float

    @property
    def z(self) -> float:
        """Return (share − expected) / sd; nan for one run, or if no permutation changes the share."""
        return (self.share - self.expected) / self.sd if self.sd > 0 else float("nan")


def mixing_score(neighbors: Int[np.ndarray, "n k"], owner: Int[np.ndarray, " n"]) -> Mixing:
    """Return the share of neighbors from another run, with its mean and standard deviation under permuted labels.

    With W_ij = 1 if j is a neighbor of i, the number of neighbors from the same run is T = Σ W_ij [o_i = o_j]. Over
    all permutations, E[T] = S0·P2 and E[T²] = S1·P2 + (S2 − 2·S1)·P3 + (S0² + S1 − S2)·P4, where S0 = Σ W,
    S1 = ½ Σ (W_ij + W_ji)², S2 = Σ_i (row_i + column_i)² (Cliff & Ord 1973), P2 and P3 are the probabilities that
    two and three points share a run, and P4 that both of two disjoint pairs do. `neighbors` exclude the point itself.
    """
    from scipy.sparse import csr_array

    n, k = neighbors.shape
    share = float((owner[neighbors] != owner[:, None]).mean())
    sizes = np.bincount(owner).astype(np.float64)
    sizes = sizes[sizes > 0]
    if len(sizes) < 2 or n < 4:
        return Mixing(share, float("nan"), float("nan"))
    two, three, four = (_falling(float(n), r) for r in (2, 3, 4))
    pairs = _falling(sizes, 2)
    p2, p3 = pairs.sum() / two, _falling(sizes, 3).sum() / three
    p4 = (pairs.sum() ** 2 - (pairs**2).sum() + _falling(sizes, 4).sum()) / four
    graph = csr_array((np.ones(n * k), neighbors.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    both = graph + graph.T
    s0, s1 = float(n * k), 0.5 * float((both.data**2).sum())
    s2 = float(((k + np.bincount(neighbors.ravel(), minlength=n).astype(np.float64)) ** 2).sum())
    mean = s0 * p2
    variance = s1 * p2 + (s2 - 2 * s1) * p3 + (s0**2 + s1 - s2) * p4 - mean**2
    return Mixing(share, float(1 - p2), float(np.sqrt(max(variance, 0.0)) / s0))


def _falling(x: Any, r: int) -> Any:
    """Return x (x − 1) … (x − r + 1), elementwise."""
    product = x
    for step in range(1, r):
        product = product * (x - step)
    return product


def procrustes_shift(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"]) -> float:
    """Return the median distance between a point's positions in two layouts after b is aligned to a, in radii.

    Both layouts are centered and scaled to root mean square radius 1, and b is rotated or reflected to
    minimize the sum of squared distances (orthogonal Procrustes).
    """
    first, second = (_standard(p) for p in (a, b))
    u, _, v = np.linalg.svd(second.T @ first)
    return float(np.median(np.linalg.norm(first - second @ (u @ v), axis=1)))


def _standard(p: np.ndarray) -> np.ndarray:
    centered = p.astype(np.float64) - p.mean(axis=0, dtype=np.float64)
    radius = np.sqrt((centered**2).sum(axis=1).mean())
    return np.asarray(centered / (radius or 1.0))


def shared_share(a: Int[np.ndarray, "n k"], b: Int[np.ndarray, "n k"]) -> float:
    """Return the mean share of entries in each row of a that are in the same row of b; rows must have no duplicates."""
    n, k = a.shape
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum() / (n * k))


def picture_neighbors(coords: Float[np.ndarray, "n 2"], k: int) -> Int[np.ndarray, "n k"]:
    """Return the k nearest other points of every point in the layout."""
    from scipy.spatial import cKDTree

    return _without_self(cKDTree(coords).query(coords, k=k + 1)[1].reshape(len(coords), k + 1))


def _without_self(found: np.ndarray) -> np.ndarray:
    """Return neighbors [n, k] without the point itself, or without the last if coincident points displaced it."""
    n, width = found.shape
    is_self = found == np.arange(n)[:, None]
    is_self[~is_self.any(axis=1), width - 1] = True
    return found[~is_self].reshape(n, width - 1)


def _neighborhoods(
    points: torch.Tensor, picture: np.ndarray, sample: np.ndarray, ks: tuple[int, int]
) -> tuple[float, float, float]:
    """Return the trustworthiness at both k and the preservation at the larger k, over the sampled points.

    A neighbor in the layout with rank r by cosine similarity (self excluded) is among the k nearest if r ≤ k. Equal
    cosines share the first rank, so ties count as preserved.
    """
    n = points.shape[0]
    penalty, kept = np.zeros(2), 0
    for part in np.array_split(sample, max(1, len(sample) * n // (1 << 24))):
        rows = torch.from_numpy(part).to(points.device)
        with full_precision():
            similarity = points[rows] @ points.T
        similarity[torch.arange(len(part)), rows] = -torch.inf
        theirs = torch.from_numpy(picture[part]).to(points.device)
        chosen = similarity.gather(1, theirs)
        rank = torch.stack([1 + (similarity > c[:, None]).sum(dim=1) for c in chosen.unbind(1)], dim=1)
        for i, k in enumerate(ks):
            penalty[i] += float((rank[:, :k] - k).clamp(min=0).sum())
        kept += int((rank <= ks[1]).sum())
    s = len(sample)
    scales = [k * (2 * n - 3 * k - 1) for k in ks]
    trust = [1 - 2 * p / (s * scale) if scale > 0 else float("nan") for p, scale in zip(penalty, scales, strict=True)]
    return trust[0], trust[1], kept / (s * ks[1])
