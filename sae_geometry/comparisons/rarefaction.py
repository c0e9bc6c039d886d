"""Rarefaction: the number of distinct latents against the number of runs, interpolated and extrapolated.

Runs correspond to samples and latents to species: each run either finds a latent or does not. The curve up to N runs is
an exact mean (Colwell et al. 2012). Beyond N, each latent has its own detection probability, with a distribution of any
shape (a binomial mixture, as in Norris & Pollock 1998). The N counts of N runs do not determine that distribution, so
the interval of an extrapolation ranges over every distribution that the counts allow. No amount of data can bound the
total number of latents from above; Chao's (1987) estimator bounds it from below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import gammaincinv, gammaln

from sae_geometry.io.formatting import counted

LEVEL = 0.95
_ITERATIONS = 3000
_GRID = 60
_MOST_FURTHER = 50


@dataclass(frozen=True, eq=False)
class Rarefaction:
    """Number of distinct latents found by k runs.

    Attributes:
        incidence: int64 [N]: number of distinct latents found by exactly 1, 2, … N runs.
        expected: float64 [N]: mean number of distinct latents found by k runs, over all subsets of k = 1, 2, … N runs.
        low, high: float64 [N]: 95% confidence limits of `expected`, by the delta method on the counts.
        further, further_low, further_high: float64 [F], extrapolation to N + 1, … N + F runs, with confidence limits of
            at least 95% coverage.
        refusal: why there is no extrapolation; None if the curve is extrapolated.
        richness, richness_low, richness_high: Chao2's lower bound on the total number of distinct latents, and the
            confidence limits of that bound; nan if some latents are found by exactly one run but none by exactly two.
    """

    n_runs: int
    incidence: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    further: np.ndarray
    further_low: np.ndarray
    further_high: np.ndarray
    refusal: str | None
    richness: float
    richness_low: float
    richness_high: float

    @property
    def n_distinct(self) -> int:
        """Return the number of distinct latents found by all runs together."""
        return int(self.incidence.sum())

    def summary(self) -> dict[str, Any]:
        """Return the counts, expectations, extrapolation and lower bound as a JSON-ready dict."""
        return {
            "means": "distinct latents (consensus groups and orphans) in k of the runs, averaged over all subsets of k "
            "runs (95% delta-method intervals on the counts); further: extrapolated to more runs like these, from a "
            "binomial mixture fitted to the counts (95% intervals over all mixtures that the counts allow); "
            "richness: Chao2, a lower bound on the total number",
            "n_runs": self.n_runs,
            "found_by_exactly": self.incidence.tolist(),
            "expected": self.expected.tolist(),
            "expected_interval": [self.low.tolist(), self.high.tolist()],
            "further": self.further.tolist(),
            "further_interval": [self.further_low.tolist(), self.further_high.tolist()],
            "further_refused": self.refusal,
            "richness_chao2": self.richness,
            "richness_interval": [self.richness_low, self.richness_high],
        }

    def in_words(self) -> str:
        """Describe the number of distinct latents in these runs, in further runs, and in total."""
        found = counted(self.n_distinct, "distinct latent")
        text = f"{found} in {self.n_runs} runs ({self.expected[0]:,.0f} in one run on average)"
        if len(self.further):
            text += (
                f"; {self.n_runs + len(self.further)} runs like these would find {self.further[-1]:,.0f} "
                f"[{self.further_low[-1]:,.0f}, {self.further_high[-1]:,.0f}]"
            )
        if math.isnan(self.richness):
            return text
        return f"{text}; at least {self.richness:,.0f} in total (Chao2's lower bound)"

    def __str__(self) -> str:
        refused = "" if self.refusal is None else f"; no extrapolation: {self.refusal}"
        return f"{self.in_words()}{refused}"


def rarefaction(incidence: np.ndarray, *, refusal: str | None = None) -> Rarefaction:
    """Return the accumulation curve of distinct latents over runs, with its extrapolation.

    With Q_c distinct latents found by exactly c of N runs, k runs find Σ_c Q_c (1 − C(N−c, k)/C(N, k)), with an
    interval by the delta method on Q with covariance Q_i(δ_ij − Q_j/(S + Q₀)), S = ΣQ. N + g runs find S Σ_j π_j (1
    − (1−p_j)^(N+g)) / (1 − (1−p_j)^N), where π_j is the share of found latents with detection probability p_j: the
    maximum-likelihood distribution on a fine grid of p. The interval ranges from the minimum to the maximum over
    distributions whose N expected counts lie in the 95% Poisson intervals of Q (one linear program each), widened by
    1.96 standard errors of the number of new latents. Chao2's bound is S + Q₀ with Q₀ = (N−1)/N · Q₁²/(2Q₂); its
    interval is Chao's log-normal interval.

    The curve is extrapolated to N further runs, at most 50, unless N = 2: two runs do not show how uneven detection is.

    Args:
        incidence: [N], Q_1 … Q_N.
        refusal: reason not to extrapolate from these runs, if any.

    Raises:
        ValueError: fewer than two runs, a negative count, or no latents found.
    """
    q = np.asarray(incidence, dtype=np.float64)
    n = len(q)
    if n < 2:
        raise ValueError(f"rarefaction needs at least two runs; got {n}")
    if (q < 0).any() or q.sum() == 0:
        raise ValueError(f"rarefaction needs non-negative counts of distinct latents, not all zero; got {q.tolist()}")
    if n < 3 and refusal is None:
        refusal = f"at least three runs are needed; got {n}"
    more = 0 if refusal is not None else min(n, _MOST_FURTHER)
    richness = float(q.sum()) + _unseen(q)
    shares = [_found_by(n, at) for at in range(1, n + 1)]
    curve = np.array([float((q * share).sum()) for share in shares])
    error = np.array([_error(q, richness, partial(np.dot, share)) for share in shares])
    further, further_low, further_high = _extrapolated(q, more)
    bound = (math.nan, math.nan, math.nan)
    if q[1] > 0 or q[0] == 0:
        spread = _error(q, richness, lambda x: float(x.sum()) + _unseen(x))
        bound = (richness, *_log_normal(float(q.sum()), _unseen(q), spread))
    return Rarefaction(
        n_runs=n,
        incidence=np.asarray(incidence, dtype=np.int64),
        expected=curve,
        low=curve - 1.96 * error,
        high=curve + 1.96 * error,
        further=further,
        further_low=further_low,
        further_high=further_high,
        refusal=refusal,
        richness=bound[0],
        richness_low=bound[1],
        richness_high=bound[2],
    )


def _found_by(n: int, k: int) -> np.ndarray:
    """Return the probability that k of N runs include any of the c runs that found a latent, float64 [N], c = 1…N."""
    c = np.arange(1, n + 1)
    with np.errstate(over="ignore"):
        missed = np.where(
            n - c >= k,
            np.exp(
                gammaln(np.maximum(n - c, k) + 1)
                - gammaln(np.maximum(n - c - k, 0) + 1)
                + gammaln(n - k + 1)
                - gammaln(n + 1)
            ),
            0.0,
        )
    return np.asarray(1 - missed)


def _unseen(q: np.ndarray) -> float:
    """Return Chao2's estimate Q₀ of unseen latents, bias-corrected if no latent is found by exactly two runs."""
    n, once, twice = len(q), float(q[0]), float(q[1])
    return (n - 1) / n * (once**2 / (2 * twice) if twice > 0 else max(once * (once - 1), 0.0) / 2)


def _error(q: np.ndarray, richness: float, f: Callable[[np.ndarray], float]) -> float:
    """Return the standard error of f(Q) by the delta method, with multinomial covariance over all latents."""
    gradient = np.empty(len(q))
    for i in range(len(q)):
        step = np.zeros(len(q))
        step[i] = max(1e-4 * q[i], 1e-4)
        gradient[i] = (f(q + step) - f(q - step if q[i] > step[i] else q)) / (step[i] * (2 if q[i] > step[i] else 1))
    covariance = np.diag(q) - np.outer(q, q) / richness
    return math.sqrt(max(float(gradient @ covariance @ gradient), 0.0))


def _log_normal(seen: float, unseen: float, error: float) -> tuple[float, float]:
    """Return Chao's interval for the total, log-normal in the unseen latents, so that it never falls below `seen`."""
    if unseen <= 0:
        return seen, seen
    factor = math.exp(1.96 * math.sqrt(math.log(1 + (error / unseen) ** 2)))
    return seen + unseen / factor, seen + unseen * factor


def _extrapolated(q: np.ndarray, more: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the extrapolation to N + 1, … N + `more` runs by maximum likelihood, and its confidence limits."""
    n, seen = len(q), float(q.sum())
    p = _grid(n)
    kernel = _kernel(p, n)
    gain = 1 - (1 - p[:, None]) ** np.arange(1, more + 1)
    gain *= ((1 - p) ** n / (1 - (1 - p) ** n))[:, None]  # new latents in N + g runs, per latent found in N runs
    fitted = seen * _weights(q, kernel)
    new = fitted @ gain
    least, most = _bounds(q, fitted @ kernel, kernel, gain)
    low = np.maximum(least - 1.96 * np.sqrt(least), 0)
    return seen + new, seen + low, seen + most + 1.96 * np.sqrt(most)


def _bounds(q: np.ndarray, fitted: np.ndarray, kernel: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the minimum and maximum number of new latents over mixtures with expected counts in intervals around q.

    The 95% Poisson intervals are widened to the counts of the maximum-likelihood mixture, so that the linear program is
    feasible. A box of 95% intervals contains the ellipsoid of one degree of freedom, so any single linear function of
    the expected counts, such as an extrapolation, has at least that coverage.
    """
    from scipy.optimize import linprog

    tail = (1 - LEVEL) / 2
    lowest = np.minimum(np.where(q > 0, gammaincinv(np.maximum(q, 1), tail), 0.0), fitted)
    highest = np.maximum(gammaincinv(q + 1, 1 - tail), fitted)
    within, limits = np.vstack([kernel.T, -kernel.T]), np.concatenate([highest, -lowest])
    ends = np.empty((2, gain.shape[1]))
    for g in range(gain.shape[1]):
        for at, sign in enumerate((1, -1)):
            ends[at, g] = sign * linprog(sign * gain[:, g], A_ub=within, b_ub=limits, method="highs").fun
    return ends[0], ends[1]


def _grid(n: int) -> np.ndarray:
    """Return detection probabilities, evenly spaced on the logit scale, from nearly undetectable in N runs to 1."""
    low = 1 / (20 * n)
    logit = np.linspace(np.log(low / (1 - low)), np.log(0.995 / 0.005), _GRID)
    return np.append(1 / (1 + np.exp(-logit)), 1.0)


def _kernel(p: np.ndarray, n: int) -> np.ndarray:
    """Return P(found by exactly k of N runs | found at all, p_j), [G, N]."""
    from scipy.stats import binom

    each = binom.pmf(np.arange(1, n + 1)[None], n, p[:, None])
    return np.asarray(each / each.sum(axis=1, keepdims=True))


def _weights(q: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return maximum-likelihood weights on the grid for these counts, float64 [G], by expectation maximization."""
    observed = q / q.sum()
    weights = np.full(len(kernel), 1 / len(kernel))
    for _ in range(_ITERATIONS):
        weights *= kernel @ (observed / np.maximum(weights @ kernel, 1e-300))
    return weights
