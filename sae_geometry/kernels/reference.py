"""Dense and slow definition of a sweep, which is the oracle for every fast path.

`exact_cosines` defines the score and `best` the order; everything else in the package must agree with them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def exact_cosines(a: Tensor, b: Tensor) -> np.ndarray:
    """Return the exact inner products of float32 rows, each rounded once to float64, as float64 [n, m].

    A product of two float32 numbers is exact in float64, and `math.fsum` adds exactly.
    """
    x, y = a.cpu().to(torch.float64).numpy(), b.cpu().to(torch.float64).numpy()
    return np.array([[math.fsum(p * q) for q in y] for p in x]).reshape(len(x), len(y))


def best(score: np.ndarray, k: int, exclude_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best columns of every row as (scores, indices), by score descending, then index ascending.

    Rows are padded with −inf and −1 if there are fewer than k columns.
    """
    n, m = score.shape
    top, where = np.full((n, k), -np.inf), np.full((n, k), -1, dtype=np.int64)
    for i in range(n):
        order = [j for j in sorted(range(m), key=lambda j: (-score[i, j], j)) if not (exclude_self and j == i)][:k]
        top[i, : len(order)], where[i, : len(order)] = score[i, order], order
    return top, where
