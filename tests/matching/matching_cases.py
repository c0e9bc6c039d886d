"""Three hundred pairs of small dictionaries, of every kind that has broken a matcher, and the dense definitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots

N_CASES = 300
LARGE = range(0, N_CASES, 29)  # up to 2,000 latents per side
SMALL = [index for index in range(N_CASES) if index not in LARGE]
_D = (1, 2, 3, 8, 17, 32, 64)


@dataclass(frozen=True)
class Case:
    """Two sets of rows, and how their pairs are ranked."""

    name: str
    a: Tensor
    b: Tensor
    absolute: bool

    @property
    def score(self) -> np.ndarray:
        """Return the canonical scores, dense float64 [n, m]."""
        return dense_scores(self.a, self.b, self.absolute)


def dense_scores(a: Tensor, b: Tensor, absolute: bool) -> np.ndarray:
    """Return every canonical score by definition."""
    rows, cols = torch.meshgrid(torch.arange(len(a)), torch.arange(len(b)), indexing="ij")
    score = exact_dots(a, b, rows.flatten(), cols.flatten()).numpy().reshape(len(a), len(b))
    return np.abs(score) if absolute else score


def sequential_greedy(score: np.ndarray) -> np.ndarray:
    """Take pairs by (score descending, row ascending, column ascending) while both are free."""
    n, m = score.shape
    partner, taken = np.full(n, -1), np.zeros(m, dtype=bool)
    for pair in np.argsort(-score.ravel(), kind="stable"):
        i, j = divmod(int(pair), m)
        if partner[i] < 0 and not taken[j]:
            partner[i], taken[j] = j, True
    return partner


def unit(x: np.ndarray) -> Tensor:
    """Return float32 rows of unit length."""
    return torch.from_numpy((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))


def _gaussian(rng, n, m, d):
    return rng.standard_normal((n, d)), rng.standard_normal((m, d))


def _clusters(rng, n, m, d):
    centers = rng.standard_normal((1 + max(n, m) // 8, d))
    a = centers[rng.integers(len(centers), size=n)] + 0.3 * rng.standard_normal((n, d))
    b = centers[rng.integers(len(centers), size=m)] + 0.3 * rng.standard_normal((m, d))
    shared = int(0.6 * min(n, m))
    b[rng.permutation(m)[:shared]] = a[rng.permutation(n)[:shared]] + 0.1 * rng.standard_normal((shared, d))
    return a, b


def _duplicates(rng, n, m, d):
    pool = rng.standard_normal((1 + max(n, m) // 12, d))
    return pool[rng.integers(len(pool), size=n)], pool[rng.integers(len(pool), size=m)]


def _ties(rng, n, m, d):
    a, b = rng.integers(-1, 2, (n, d)).astype(float), rng.integers(-1, 2, (m, d)).astype(float)
    a[:, 0] = b[:, 0] = 1  # This avoids zero rows.
    return a, b


def _antiparallel(rng, n, m, d):
    a = rng.standard_normal((n, d))
    b = rng.standard_normal((m, d))
    k = min(n, m)
    b[:k] = -a[:k] + 0.2 * rng.standard_normal((k, d))
    return a, b[rng.permutation(m)]


def _favorite(rng, n, m, d):
    """Let every row prefer the same few columns, in nearly the same order."""
    axis = np.eye(1, d)
    return axis + 0.05 * rng.standard_normal((n, d)), axis + rng.random((m, 1)) * rng.standard_normal((m, d))


def _all_the_same(rng, n, m, d):
    return np.ones((n, d)), np.ones((m, d))


def _same_dictionary(rng, n, m, d):
    a = rng.standard_normal((max(n, m), d))
    return a[:n], a[rng.permutation(max(n, m))[:m]]


FAMILIES = (_gaussian, _clusters, _duplicates, _ties, _antiparallel, _favorite, _all_the_same, _same_dictionary)
_SLOW = (_favorite, _all_the_same)  # scipy and the naive greedy matching are slow on these.


def case(index: int) -> Case:
    """Return case `index` of `N_CASES`: family and ranking cycle, sizes and shapes are random."""
    rng = np.random.default_rng(index)
    family = FAMILIES[index % len(FAMILIES)]
    absolute = (index // len(FAMILIES)) % 2 == 1
    largest = 2000 if index in LARGE else 250 if index % 7 == 0 else 90
    if family in _SLOW:
        largest = min(largest, 400)
    n = largest if index in LARGE else int(np.exp(rng.uniform(0, np.log(largest))))
    shape = index % 3
    m = (
        n
        if shape == 0
        else max(1, int(n * rng.uniform(0.3, 1)))
        if shape == 1
        else min(2000, n + int(rng.integers(40)))
    )
    if index % 50 == 7:
        n, m = (1, m) if index % 100 == 7 else (n, 1)
    a, b = family(rng, n, m, int(rng.choice(_D)))
    return Case(f"{index}:{family.__name__[1:]}:{n}x{m}", unit(a), unit(b), absolute)
