"""Naive twins: each reads as the definition of what the package computes fast."""

from __future__ import annotations

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of float64 unit length, rounded to float32."""
    x = np.asarray(x, dtype=np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def dense_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """C = A·Bᵀ in float64 from float32 rows."""
    return np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64).T


def sequential_greedy(score: np.ndarray) -> np.ndarray:
    """Take the best remaining pair until one side is used up; ties by row, then column. Partner of each or −1."""
    n, m = score.shape
    pairs = sorted((-score[i, j], i, j) for i in range(n) for j in range(m))
    partner, free = np.full(n, -1), np.ones(m, dtype=bool)
    for _, i, j in pairs:
        if partner[i] < 0 and free[j]:
            partner[i], free[j] = j, False
    return partner


def related_decoders(
    rng: np.random.Generator, n: int, m: int, d: int, shared: int, noise: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Two raw decoders of which `shared` directions are the same up to noise, rows of uneven length."""
    a, b = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    b[:shared] = a[rng.permutation(n)[:shared]] + noise * rng.standard_normal((shared, d))
    return a * rng.uniform(0.2, 5, (n, 1)), b * rng.uniform(0.2, 5, (m, 1))
