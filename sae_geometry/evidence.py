"""How far a picture may be believed: what it kept of the original neighbourhoods, and how the runs mix in both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sae_geometry.neighbors import Neighbors

EVIDENCE_SAMPLE = 1000
EVIDENCE_K = 15


@dataclass(frozen=True)
class Evidence:
    """How far the picture may be believed. Neighbour sets have k = 15, fewer where there are not 31 points.

    Attributes:
        k: size of the neighbourhoods.
        n_sampled: points over which trustworthiness is averaged (all, or a seeded sample of 1,000).
        trustworthiness: 1 − 2/(s·k·(2n − 3k − 1)) Σ (rank − k)⁺ over the picture's k neighbours, rank in cosine
            similarity in the original space (Venna & Kaski 2001); 1 is best.
        neighbor_preservation: mean share of the k nearest in the original space that are among the k nearest in the
            picture.
        mixing_original, mixing_picture: mean share of a point's k neighbours that belong to another dictionary.
        mixing_null: the same share expected if labels were permuted: 1 − Σ n_r(n_r − 1)/(N(N − 1)); nan for one
            dictionary.
    """

    k: int
    n_sampled: int
    trustworthiness: float
    neighbor_preservation: float
    mixing_original: float
    mixing_picture: float
    mixing_null: float

    def line(self) -> str:
        """One line for beneath a figure."""
        kept = f"{self.neighbor_preservation:.0%} (k = {self.k})"
        text = f"trustworthiness {self.trustworthiness:.3f}, neighbours kept {kept}"
        if not np.isnan(self.mixing_null):
            text += (
                f"; neighbours from another run: {self.mixing_original:.0%} in the original space, "
                f"{self.mixing_picture:.0%} in the picture, {self.mixing_null:.0%} if labels were shuffled"
            )
        return text


def measure_evidence(
    points: torch.Tensor, near: Neighbors, coords: np.ndarray, owner: np.ndarray, seed: int
) -> Evidence:
    from scipy.spatial import cKDTree

    n = len(owner)
    k = max(1, min(EVIDENCE_K, (n - 1) // 2, near.indices.shape[1] - 1))  # trustworthiness needs k < n / 2
    original = near.indices[:, 1 : k + 1]
    picture = _without_self(cKDTree(coords).query(coords, k=k + 1)[1].reshape(n, k + 1))
    kept = np.mean([len(np.intersect1d(o, p, assume_unique=True)) for o, p in zip(original, picture, strict=True)]) / k
    sample = np.sort(np.random.default_rng(seed).permutation(n)[:EVIDENCE_SAMPLE])
    sizes = np.bincount(owner)
    mixing_null = 1 - float((sizes * (sizes - 1)).sum()) / (n * (n - 1)) if len(sizes) > 1 else float("nan")
    return Evidence(
        k=k,
        n_sampled=len(sample),
        trustworthiness=_trustworthiness(points, picture, sample, k),
        neighbor_preservation=float(kept),
        mixing_original=float((owner[original] != owner[:, None]).mean()),
        mixing_picture=float((owner[picture] != owner[:, None]).mean()),
        mixing_null=mixing_null,
    )


def _without_self(found: np.ndarray) -> np.ndarray:
    """[n, k+1] neighbours, self somewhere among them (or crowded out by coincident points) → [n, k] others."""
    n, width = found.shape
    is_self = found == np.arange(n)[:, None]
    is_self[~is_self.any(axis=1), width - 1] = True
    return found[~is_self].reshape(n, width - 1)


def _trustworthiness(points: torch.Tensor, picture: np.ndarray, sample: np.ndarray, k: int) -> float:
    """Mean over the sampled points; ranks counted in the original space by cosine, self left out."""
    n = points.shape[0]
    scale = k * (2 * n - 3 * k - 1)
    if scale <= 0:
        return float("nan")
    penalty = 0.0
    for part in np.array_split(sample, max(1, len(sample) * n // (1 << 24))):
        rows = torch.from_numpy(part)
        similarity = points[rows.to(points.device)] @ points.T
        similarity[torch.arange(len(part)), rows.to(points.device)] = -torch.inf
        theirs = torch.from_numpy(picture[part]).to(points.device)
        for column in range(k):
            chosen = similarity.gather(1, theirs[:, column : column + 1])
            rank = 1 + (similarity > chosen).sum(dim=1)
            penalty += float((rank - k).clamp(min=0).sum())
    return 1 - 2 * penalty / (len(sample) * scale)
