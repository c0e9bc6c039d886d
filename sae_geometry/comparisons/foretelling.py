"""Where an accumulation curve leads: a binomial mixture fitted to how many runs found each latent.

Every latent has a chance p of being found by a run, and p differs from latent to latent by a distribution that nothing
is assumed of: weights on a grid, by maximum likelihood given that a latent was found at all. Few runs do not determine
that distribution, but what about as many runs more would find depends on it little.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

_DRAWS = 200
_ITERATIONS = 3000
_GRID = 60


def foretell(q: np.ndarray, more: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How many distinct latents N + 1, … N + more runs would find, and the half width of the 95 % interval of each.

    Args:
        q: float64 [N], how many were found by exactly 1, … N runs.
        more: how many runs more.
        seed: of the bootstrap.
    """
    n, seen = len(q), float(q.sum())
    p = _grid(n)
    kernel = _kernel(p, n)
    share = _weights(q[None], kernel)
    gain = _gain(p, n, more)
    found = seen * (share @ gain)[0]
    if more == 0:
        return found, np.zeros(0)
    # Communities like the fitted one, seen and unseen, looked at by as many runs: how far off is what they foretell?
    missed = (1 - p) ** n
    community = seen * share[0] / (1 - missed)
    counts = np.concatenate([[float(community @ missed)], seen * (share @ kernel)[0]])
    drawn = np.random.default_rng(seed).multinomial(round(counts.sum()), counts / counts.sum(), size=_DRAWS)[:, 1:]
    drawn = drawn[drawn.sum(axis=1) > 0].astype(np.float64)
    again = drawn.sum(axis=1, keepdims=True) * (_weights(drawn, kernel) @ gain - 1)
    new = found - seen
    variance = ((again - new) ** 2).mean(axis=0) + new
    return found, 1.96 * np.sqrt(variance)


def _grid(n: int) -> np.ndarray:
    """Chances, even on the logit scale, from where N runs hardly find anything to certainty."""
    low = 1 / (20 * n)
    logit = np.linspace(np.log(low / (1 - low)), np.log(0.995 / 0.005), _GRID)
    return np.append(1 / (1 + np.exp(-logit)), 1.0)


def _kernel(p: np.ndarray, n: int) -> np.ndarray:
    """P(found by exactly k of N runs | found at all, chance p_j), [G, N]."""
    each = binom.pmf(np.arange(1, n + 1)[None], n, p[:, None])
    return np.asarray(each / each.sum(axis=1, keepdims=True))


def _weights(q: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Maximum-likelihood weights on the grid for each row of counts, by expectation maximisation; [B, G]."""
    observed = q / q.sum(axis=1, keepdims=True)
    weights = np.full((len(q), len(kernel)), 1 / len(kernel))
    for _ in range(_ITERATIONS):
        weights *= (observed / np.maximum(weights @ kernel, 1e-300)) @ kernel.T
    return weights


def _gain(p: np.ndarray, n: int, more: int) -> np.ndarray:
    """P(found by N + g runs) / P(found by N), [G, more]."""
    g = np.arange(1, more + 1)
    return np.asarray((1 - (1 - p)[:, None] ** (n + g)) / (1 - (1 - p[:, None]) ** n))
