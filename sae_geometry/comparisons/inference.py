"""How sure: intervals over runs and over latents, and whether two kinds of runs differ.

Latents of one pair of runs are not independent samples of what training does: an interval over them says how well the
mean of *this pair* is known, and nothing about other seeds. Three runs or more give an interval over runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.95
SIGNIFICANT = 0.05
_MOST_RELABELLINGS = 20_000
_SAMPLED = 9_999


@dataclass(frozen=True)
class Interval:
    """A mean and how sure it is.

    Attributes:
        mean, low, high: the estimate and its interval; low and high nan where there is none.
        level: the nominal coverage, 0.95.
        over: what the interval ranges over: "runs", or "latents of one pair".
        n: how many of those.
        standard_error: of the mean.
    """

    mean: float
    low: float
    high: float
    level: float
    over: Literal["runs", "latents of one pair"]
    n: int
    standard_error: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:.4f}"
        note = (
            f"{self.n} runs" if self.over == "runs" else f"{self.n:,} latents of this one pair; says nothing of seeds"
        )
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.level:.0%} over {note})"


@dataclass(frozen=True)
class KindDifference:
    """Whether runs of one kind resemble each other more than runs of another do.

    Attributes:
        first, second: the kinds.
        difference: mean over pairs within `first` minus mean over pairs within `second`.
        p_value: two-sided, over relabellings of the runs; nan where there are too few runs for any test.
        relabellings: how many distinct relabellings were made, the actual one among them.
        exact: whether those are all there are.
        refusal: why there is no p-value, and how many runs it takes; None where there is one.
    """

    first: str
    second: str
    difference: float
    p_value: float
    relabellings: int
    exact: bool
    refusal: str | None

    def __str__(self) -> str:
        text = f"within {self.first} − within {self.second}: {self.difference:+.4f}"
        if self.refusal is not None:
            return f"{text}; no test: {self.refusal}"
        how = "all" if self.exact else "sampled"
        count = f"{how} {self.relabellings:,} relabellings"
        return f"{text}, p = {self.p_value:.4g} (permutation of runs between kinds, {count})"


def interval_over_runs(matrix: np.ndarray, level: float = LEVEL) -> Interval:
    """Interval for the mean over ordered pairs of runs, runs being the sample.

    The two directions of a pair are averaged, m_ij = μ + r_i + r_j + e_ij: every run has an effect on all of its
    pairs, and each pair its own. With N ≥ 4 runs both variances are estimated (analysis of variance of a round robin)
    and Var = 4σ_r²/N + 2σ_e²/(N(N−1)), with Satterthwaite's degrees of freedom. With three the two cannot be told
    apart and all is taken to be the runs': then the interval is wide where it is not (up to 98.5 % coverage).

    Args:
        matrix: [N, N], a value for every ordered pair of runs; the diagonal is not used.
        level: nominal coverage.

    Raises:
        ValueError: fewer than three runs, or values that are not finite.
    """
    from scipy.stats import t

    n = len(matrix)
    if n < 3:
        raise ValueError(f"an interval over runs needs at least three runs; got {n}")
    upper = np.triu_indices(n, 1)
    pairs = ((matrix + matrix.T) / 2)[upper]
    if not np.isfinite(pairs).all():
        raise ValueError("an interval over runs needs a finite value for every pair of runs")
    mean = float(pairs.mean())
    total = np.zeros(n)
    np.add.at(total, upper[0], pairs)
    np.add.at(total, upper[1], pairs)
    effect = (total / (n - 1) - mean) * (n - 1) / (n - 2)
    between = (n - 2) * float((effect**2).sum()) / (n - 1)  # estimates (N − 2) σ_r² + σ_e²
    freedom_within = n * (n - 3) // 2
    left = pairs - mean - effect[upper[0]] - effect[upper[1]]
    within = float((left**2).sum()) / freedom_within if freedom_within else 0.0  # estimates σ_e²
    if between >= within:
        weight = 4 / (n * (n - 2))
        parts = (weight * between, (2 / (n * (n - 1)) - weight) * within)
        variance = sum(parts)
        freedom = variance**2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / max(freedom_within, 1)) if variance else 1.0
    else:  # no effect of runs beyond that of pairs
        freedom = n - 1 + freedom_within
        variance = 2 / (n * (n - 1)) * ((n - 1) * between + freedom_within * within) / freedom
    error = math.sqrt(max(variance, 0.0))
    half = float(t.ppf(0.5 + level / 2, max(freedom, 1.0))) * error
    return Interval(mean, mean - half, mean + half, level, "runs", n, error)


def interval_over_latents(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Student's interval for the mean of one pair of runs, latents being the sample. Not an interval over seeds.

    Args:
        values: [n], one similarity a latent; nan are left out.
        level: nominal coverage.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy.stats import t

    there = values[~np.isnan(values)]
    if len(there) < 2:
        raise ValueError(f"an interval over latents needs at least two; got {len(there)}")
    mean, error = float(there.mean()), float(there.std(ddof=1) / math.sqrt(len(there)))
    half = float(t.ppf(0.5 + level / 2, len(there) - 1)) * error
    return Interval(mean, mean - half, mean + half, level, "latents of one pair", len(there), error)


def kind_difference(
    matrix: np.ndarray, kinds: Sequence[str], first: str, second: str, *, seed: int = 0
) -> KindDifference:
    """Do runs of the first kind resemble each other more than runs of the second? A permutation test over runs.

    The statistic is the mean over ordered pairs within `first` minus that within `second`. If kinds did not matter the
    runs of both could be relabelled at will: p is the share of relabellings with at least as large a difference,
    either way. All are made where there are at most 20,000, otherwise 9,999 drawn at random beside the actual one.

    Args:
        matrix: [N, N], a value for every ordered pair of runs.
        kinds: of each run.
        first, second: two of them.
        seed: of the sampled relabellings.

    Raises:
        ValueError: a kind that no run has, or the same kind twice.
    """
    members = [np.flatnonzero([k == kind for k in kinds]) for kind in (first, second)]
    if first == second or min(map(len, members)) == 0:
        raise ValueError(f"two different kinds that runs have are needed; got {first!r} and {second!r}")
    n, m = map(len, members)
    pool = np.concatenate(members)
    among = ((matrix + matrix.T) / 2)[np.ix_(pool, pool)].copy()
    np.fill_diagonal(among, 0.0)
    if min(n, m) < 2:
        lone = first if n < 2 else second
        return KindDifference(
            first, second, float("nan"), float("nan"), 0, True,
            f"{lone} has one run, so no pair within it; it takes {_enough(n, m)}",
        )  # fmt: skip

    def statistic(chosen: np.ndarray) -> float:
        inside = np.zeros(n + m)
        inside[chosen] = 1
        outside = 1 - inside
        return float(inside @ among @ inside / (n * (n - 1)) - outside @ among @ outside / (m * (m - 1)))

    observed = statistic(np.arange(n))
    distinct = math.comb(n + m, n)
    if (2 if n == m else 1) / distinct > SIGNIFICANT:
        return KindDifference(
            first, second, observed, float("nan"), distinct, True,
            f"{n} and {m} runs have only {distinct} relabellings, so no p-value could fall to {SIGNIFICANT}; "
            f"it takes {_enough(n, m)}",
        )  # fmt: skip
    exact = distinct <= _MOST_RELABELLINGS
    if exact:
        found = np.array([statistic(np.array(c)) for c in itertools.combinations(range(n + m), n)])
    else:
        rng = np.random.default_rng(seed)
        found = np.array([observed, *(statistic(rng.permutation(n + m)[:n]) for _ in range(_SAMPLED))])
    reached = np.abs(found) >= abs(observed) - 1e-12
    return KindDifference(first, second, observed, float(reached.mean()), len(found), exact, None)


def _enough(n: int, m: int) -> str:
    """The smallest numbers of runs, no smaller than these, at which p ≤ 0.05 can be reached."""
    for total in itertools.count(max(n, 2) + max(m, 2)):
        for a in range(max(n, 2), total - max(m, 2) + 1):
            b = total - a
            if (2 if a == b else 1) / math.comb(total, a) <= SIGNIFICANT:
                return f"{a} and {b}"
    raise AssertionError("unreachable")
