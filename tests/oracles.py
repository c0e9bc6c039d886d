"""Naive implementations, by definition, of what the package computes fast."""

from __future__ import annotations

import numpy as np


def unit(x: np.ndarray) -> np.ndarray:
    """Return rows of unit length in float64, rounded to float32."""
    x = np.asarray(x, dtype=np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def dense_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return C = A·Bᵀ in float64 from float32 rows."""
    return np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64).T


def sequential_greedy(score: np.ndarray) -> np.ndarray:
    """Take the best remaining pair until one side is used up, ties by row, then column; return each partner or −1."""
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
    """Return two raw decoders with rows of different norms that share `shared` directions up to noise."""
    a, b = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    b[:shared] = a[rng.permutation(n)[:shared]] + noise * rng.standard_normal((shared, d))
    return a * rng.uniform(0.2, 5, (n, 1)), b * rng.uniform(0.2, 5, (m, 1))


def dense_turned(y: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Flip the given signs of coordinates along the principal axes orthogonal to the mean."""
    y = np.asarray(y, dtype=np.float64)
    mean = y.mean(axis=0)
    mean /= np.linalg.norm(mean)
    along = np.outer(y @ mean, mean)
    axes = np.linalg.svd(y - along)[2][: len(signs)][::-1]
    return along + ((y - along) @ axes.T * signs) @ axes


def dense_competition(target: np.ndarray, own: np.ndarray | None, turned: np.ndarray, rate: float) -> np.ndarray:
    """Return which latents are significant at `rate`, as bool [n], from whole matrices of similarities.

    A latent wins if its nearest target is above all decoys. Wins and losses are ranked by the larger of the two minus
    the mean of ranks 2 to 9 of all candidates, divided by a spread: the standard deviation of ranks 3 to 9, at most
    six times its median over latents, plus 1.5 times this median. A loss to an own latent counts as max(1, m / (n − 1))
    and a loss to a turned one as 1; all are scaled up if latents below the threshold for 5% win more often than that.
    The threshold is the lowest at which (one loss + losses / left) / wins is at most `rate`. `left` is the share of
    latents that are not significant at 5% with all decoys, at least one half.

    Args:
        target: [n, m] similarities to the other dictionary.
        own: [n, n] similarities within the dictionary, or None to leave this control out. The diagonal and values from
            0.99 on are ignored. If m < n − 1, each of the nine nearest is sampled with probability m / (n − 1).
        turned: [n, m] similarities to the turned dictionary.
        rate: the false discovery rate.
    """
    n, m = target.shape
    w, spread, odds = np.empty(n), np.empty(n), np.ones(n)
    most = max(1.0, m / (n - 1)) if own is not None else 1.0
    among = np.random.default_rng(0).random((n, 9)) < m / (n - 1)  # True unless the other dictionary is narrower.
    among[:, -1] = True
    for i in range(n):
        lists = [target[i], turned[i]]
        if own is not None:
            others = np.sort(np.delete(own[i], i))[::-1][:9]
            others = others[others < 0.99]
            lists.append(others[among[i, : len(others)]])
        nine = [np.sort(x)[::-1][:9] for x in lists]
        decoy = max(x[0] for x in nine[1:] if len(x))
        everything = np.sort(np.concatenate(nine))[::-1]
        height, spread[i] = max(nine[0][0], decoy) - everything[1:9].mean(), everything[2:9].std()
        w[i] = height if nine[0][0] > decoy else -height
        if decoy > nine[1][0]:
            odds[i] = most
    middle = np.median(spread)
    w /= np.minimum(spread, 6 * middle) + 1.5 * middle + 1e-6

    def threshold(rate: float, raised: float = 1.0, left: float = 1.0) -> float:
        def passes(t: float) -> bool:
            return raised * (most + odds[w <= -t].sum() / left) <= rate * (w >= t).sum()

        return min(filter(passes, np.abs(w)), default=np.inf)

    rest = np.abs(w) < threshold(0.05)
    lost = rest & (w <= 0)
    raised = max(1.0, (rest & (w > 0)).sum() / odds[lost].sum()) if lost.sum() >= 20 else 1.0
    left = max(1 - (w >= threshold(0.05, raised)).mean(), 0.5)
    return w >= threshold(rate, raised, left)
