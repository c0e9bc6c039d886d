"""Coherence and spectrum of one dictionary: cumulative coherence, mean |cosine|, effective rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.io.formatting import counted, or_dash
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.loops.threads import one_torch_thread
from sae_geometry.kernels.screens.products import full_precision
from sae_geometry.kernels.sweep import MAX_K, listing_sweep

_SHOWN = (1, 2, 4, 8, 16, 32, 64)  # values of k in a summary
_SHARES = (0.5, 0.9, 0.99)  # shares of the squared length
_ROWS = 2048  # rows and columns per tile


@dataclass(frozen=True, eq=False)
class Coherence:
    """Measures of how far the directions of one dictionary are from orthogonal.

    Attributes:
        cumulative: float64 [K], μ₁(k) for k = 1…K, at most 64: the largest sum of |cosine| of one latent with k others
            (Tropp 2004). If μ₁(k) is below 1, any k latents can be recovered from their sum; μ₁(1) is the coherence.
        mean_absolute_cosine: mean |cosine| over all pairs of latents; nan for one latent. It is high if an SAE was
            trained with too low or too high an L0 and therefore mixes features.
        spectrum: float64 [min(n, d)], the eigenvalues of AᵀA / n in descending order: the share of squared length
            along each principal dimension.
    """

    cumulative: np.ndarray
    mean_absolute_cosine: float
    spectrum: np.ndarray

    @property
    def effective_rank(self) -> float:
        """Return the participation ratio of the spectrum, (Σλ)² / Σλ²: d for evenly spread directions."""
        return float(self.spectrum.sum() ** 2 / (self.spectrum**2).sum())

    def dimensions_for(self, share: float) -> int:
        """Return the number of principal dimensions that hold `share` of the squared length."""
        held = np.cumsum(self.spectrum) / self.spectrum.sum()
        return int(np.searchsorted(held, share - 1e-12)) + 1

    def summary(self) -> dict[str, Any]:
        """Return the measures as a JSON-ready dict."""
        return {
            "cumulative_coherence_means": "the largest sum of |cosine| of one latent with k others",
            "cumulative_coherence": {f"{k}": float(self.cumulative[k - 1]) for k in self._shown},
            "mean_absolute_cosine": self.mean_absolute_cosine,
            "effective_rank": self.effective_rank,
            "dimensions_for_share_of_squared_length": {f"{s}": self.dimensions_for(s) for s in _SHARES},
            "spectrum": self.spectrum.tolist(),
        }

    @property
    def _shown(self) -> list[int]:
        return [k for k in _SHOWN if k <= len(self.cumulative)]

    def lines(self) -> list[str]:
        """Return the measures as lines of text."""
        sums = ", ".join(f"{self.cumulative[k - 1]:.2f} ({k})" for k in self._shown)
        return [
            f"coherence μ₁(k): {sums or '–'}",
            f"mean |cosine| {or_dash(self.mean_absolute_cosine, '.4f')}; effective rank {self.effective_rank:.0f}, "
            f"90% in {counted(self.dimensions_for(0.9), 'dimension')}",
        ]


def coherence(x: Float[Tensor, "n d"], progress: Progress | None = None) -> Coherence:
    """Compute the coherence of unit rows without forming their n × n matrix."""
    k = min(MAX_K, len(x) - 1)
    sums = np.empty(0)
    if k:
        tick = None if progress is None else lambda share: progress("coherence", share)
        listed = listing_sweep(x, None, k, absolute=True, progress=tick).rows.score
        sums = listed.cumsum(dim=1).amax(dim=0).cpu().numpy()
    with one_torch_thread(), full_precision():  # The result must not depend on the number of threads.
        return Coherence(sums, _mean_absolute_cosine(x), _spectrum(x))


def _mean_absolute_cosine(x: Tensor) -> float:
    """Return the mean |cosine| over pairs i ≠ j, from tiles on and above the diagonal."""
    n, total = len(x), 0.0
    if n < 2:
        return float("nan")
    tiles = x.split(_ROWS)
    for at, rows in enumerate(tiles):
        for columns in tiles[at:]:
            size = (rows @ columns.T).abs()
            if columns is rows:
                size.fill_diagonal_(0.0)
            total += float(size.sum(dtype=torch.float64)) * (1 if columns is rows else 2)
    return total / (n * (n - 1))


def _spectrum(x: Tensor) -> np.ndarray:
    n, d = x.shape
    if n < d:
        wide = x.double()
        moment = wide @ wide.T
    else:
        moment = torch.zeros((d, d), dtype=torch.float64, device=x.device)
        for part in x.split(_ROWS):
            wide = part.double()
            moment += wide.T @ wide
    powers = torch.linalg.eigvalsh(moment / n).clamp(min=0.0)
    return np.asarray(powers.flip(0).cpu().numpy())
