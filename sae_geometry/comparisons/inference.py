"""Inference: confidence intervals over runs and over latents, and tests of whether two kinds of runs differ.

Latents of one pair of runs are not independent samples of training: an interval over latents covers the mean of *this
pair*, and says nothing about other seeds. With three or more runs, there is an interval over runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

from sae_geometry.io.formatting import counted
from sae_geometry.nulls.competition import share_of

LEVEL = 0.95
SIGNIFICANT = 0.05
_APART = 0.01  # significance level of the test for outlying runs
_MOST_PERMUTATIONS = 20_000
_SAMPLED = 9_999


@dataclass(frozen=True)
class Interval:
    """Mean with its confidence interval.

    Attributes:
        mean, low, high: the estimate and its interval; low and high are nan if there is none.
        over: sampling unit, "runs" or "latents of one pair".
        note: caveats on the interval, and any outlying runs; empty for an interval over latents.
    """

    mean: float
    low: float
    high: float
    level: float
    over: Literal["runs", "latents of one pair"]
    n: int
    standard_error: float
    note: str = ""

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.mean:.4f}"
        latents = f"{counted(self.n, 'latent')} of this one pair; says nothing about other seeds"
        scope = counted(self.n, "run") if self.over == "runs" else latents
        note = f"; {self.note}" if self.note else ""
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.level:.0%} over {scope}{note})"


@dataclass(frozen=True)
class KindDifference:
    """Difference between the mean similarities within two kinds of runs, with its test.

    Attributes:
        difference: mean over pairs within `first` minus mean over pairs within `second`; nan if either has one run.
        p_value: the larger of the two-sided p-values of a permutation test and Welch's test; nan if `refusal` is given.
        permutations: number of permutations of runs between kinds, including the observed one.
        exact: whether all permutations were enumerated.
        refusal: why there is no p-value, and how many runs the test needs; None if there is a p-value.
    """

    first: str
    second: str
    difference: float
    p_value: float
    permutations: int
    exact: bool
    refusal: str | None

    def __str__(self) -> str:
        value = "–" if math.isnan(self.difference) else f"{self.difference:+.4f}"
        text = f"within {self.first} − within {self.second}: {value}"
        if self.refusal is not None:
            return f"{text}; no test: {self.refusal}"
        how = "all" if self.exact else "sampled"
        return (
            f"{text}, p = {self.p_value:.4g} (the larger of Welch's test over runs and a permutation test between "
            f"kinds, {how} {self.permutations:,} permutations)"
        )


def interval_over_runs(
    matrix: np.ndarray, *, latents: int | None = None, names: Sequence[str] | None = None
) -> Interval:
    """Return an interval for the mean over ordered pairs of runs, with runs as the sampling unit.

    The two directions of a pair are averaged, m_ij = μ + r_i + r_j + e_ij: each run has an effect on all of its
    pairs, and each pair has its own. With N ≥ 4 runs both variances are estimated (analysis of variance, round robin)
    and Var = 4σ_r²/N + 2σ_e²/(N(N−1)), with Satterthwaite's degrees of freedom. With N = 3 the two
    cannot be separated and all variance is attributed to runs. The variance is scaled by N/(N−1), because the effects
    of uneven runs are skewed. If all values lie in 0…1, the interval is computed on the logit scale (delta method) and
    stays in that range.

    Args:
        matrix: [N, N], a value for every ordered pair of runs; the diagonal is not used.
        latents: for shares, the total number of latents over all runs: the interval is then never narrower than
            Wilson's for that number.
        names: names of the runs for the note; if None, runs are numbered from 1.

    Raises:
        ValueError: fewer than three runs, or values that are not finite.
    """
    n = len(matrix)
    if n < 3:
        raise ValueError(f"an interval over runs needs at least three runs; got {n}")
    symmetric = (matrix + matrix.T) / 2
    pairs = symmetric[np.triu_indices(n, 1)]
    if not np.isfinite(pairs).all():
        raise ValueError("an interval over runs needs a finite value for every pair of runs")
    mean, variance, freedom = _round_robin(symmetric)
    error = math.sqrt(variance)
    quantile = float(stdtrit(freedom, 0.5 + LEVEL / 2))
    if ((pairs >= 0) & (pairs <= 1)).all() and 0 < mean < 1:
        half = quantile * error / (mean * (1 - mean))
        low, high = (float(expit(logit(mean) + side * half)) for side in (-1, 1))
    else:
        low, high = mean - quantile * error, mean + quantile * error
    if latents is not None:
        least = share_of(mean * latents, latents)
        low, high = min(low, least.low), max(high, least.high)
    note = _note(symmetric, [f"run {at + 1}" for at in range(n)] if names is None else list(names))
    return Interval(mean, low, high, LEVEL, "runs", n, error, note)


def runs_apart(matrix: np.ndarray) -> list[int]:
    """Return the rows of outlying runs, far less similar to the rest than the rest are to each other, worst first.

    Runs are removed one by one, the least similar first, down to a bare majority of at least three; each is tested by
    its studentized mean over pairs among the remaining runs (Grubbs' test, 1%), and all up to the last significant run
    are outliers (Rosner's procedure, so that two failed runs do not mask each other). The result is empty
    for fewer than four runs. The diagonal of the matrix is not used.
    """
    symmetric = (matrix + matrix.T) / 2
    left, taken, apart = list(range(len(matrix))), [], 0
    while len(left) > max(3, (len(matrix) + 2) // 2):
        among = symmetric[np.ix_(left, left)].copy()
        np.fill_diagonal(among, 0.0)
        effect = among.sum(axis=1) / (len(left) - 1)
        lowest = int(effect.argmin())
        others = np.delete(effect, lowest)
        spread = float(others.std(ddof=1)) * math.sqrt(1 + 1 / len(others))
        critical = -stdtrit(len(others) - 1, _APART / (len(others) + 1))
        taken.append(left.pop(lowest))
        if others.mean() - effect[lowest] > critical * spread:
            apart = len(taken)
    return taken[:apart]


def interval_over_latents(values: np.ndarray) -> Interval:
    """Return Student's interval for the mean of latents' similarities [n] in one pair of runs; nan is ignored."""
    there = values[~np.isnan(values)]
    if len(there) < 2:
        raise ValueError(f"an interval over latents needs at least two latents; got {len(there)}")
    mean, error = float(there.mean()), float(there.std(ddof=1) / math.sqrt(len(there)))
    half = float(stdtrit(len(there) - 1, 0.5 + LEVEL / 2)) * error
    return Interval(mean, mean - half, mean + half, LEVEL, "latents of one pair", len(there), error)


def interval_both_ways(means: Sequence[float], deviations: Sequence[float], counts: Sequence[int]) -> Interval:
    """Return an interval for the mean of both directions of one pair of runs, with latents as the sampling unit.

    Mutual nearest neighbors contribute the same similarity to both directions, so the two means are not independent;
    treating them as independent makes the error up to √2 too small. Their correlation is unknown, so the error is its
    upper bound, the mean of the two errors; Student's t has the degrees of freedom of the smaller side.
    """
    mean = sum(means) / 2
    error = sum(s / math.sqrt(n) for s, n in zip(deviations, counts, strict=True)) / 2
    least = min(counts)
    half = float(stdtrit(least - 1, 0.5 + LEVEL / 2)) * error if least > 1 else math.nan
    return Interval(mean, mean - half, mean + half, LEVEL, "latents of one pair", least, error)


def interval_of_share(count: int, n: int) -> Interval:
    """Return Wilson's interval for the share of `count` among n latents of one pair of runs; it stays in 0…1."""
    share = share_of(count, n)
    error = math.sqrt(share.value * (1 - share.value) / n)
    return Interval(share.value, share.low, share.high, LEVEL, "latents of one pair", n, error)


def kind_difference(matrix: np.ndarray, kinds: Sequence[str], first: str, second: str) -> KindDifference:
    """Test over runs whether runs of the first kind resemble each other more than runs of the second.

    The statistic is the mean over ordered pairs within `first` minus that within `second`. Pairs across kinds are
    shifted to the mean of the two, since similarity *between* kinds is not tested; under the null hypothesis
    runs are then exchangeable, and p is the share of permutations with at least as large an absolute difference. Up
    to 20,000 permutations are enumerated; otherwise 9,999 are sampled and the observed one is added. Permutation is
    anti-conservative where the kinds differ in variance, so p is at least that of Welch's test (each kind has its own
    round-robin variance, as in `interval_over_runs`).

    Raises:
        ValueError: a kind without runs, or the same kind twice.
    """
    members = [np.flatnonzero([k == kind for k in kinds]) for kind in (first, second)]
    if first == second or min(map(len, members)) == 0:
        raise ValueError(f"the kinds must differ and each have at least one run; got {first!r} and {second!r}")
    n, m = map(len, members)
    pool = np.concatenate(members)
    among = ((matrix + matrix.T) / 2)[np.ix_(pool, pool)].copy()
    np.fill_diagonal(among, 0.0)
    if min(n, m) < 2:
        lone = first if n < 2 else second
        why = f"{lone} has only one run, so there is no pair within it; the test needs {_enough(n, m)} runs"
        return KindDifference(first, second, math.nan, math.nan, 0, True, why)
    means = [float(part.sum() / (k * (k - 1))) for part, k in ((among[:n, :n], n), (among[n:, n:], m))]
    observed = means[0] - means[1]
    distinct = math.comb(n + m, n)
    if why := _too_few(n, m, first if n < m else second):
        why = f"{why}; the test needs {_enough(n, m)} runs"
        return KindDifference(first, second, observed, math.nan, distinct, True, why)
    shift = sum(means) / 2 - among[:n, n:].mean()
    among[:n, n:] += shift
    among[n:, :n] += shift
    permuted, exact = _permuted(among, n), distinct <= _MOST_PERMUTATIONS
    permutation = float((np.abs(permuted) >= abs(observed) - 1e-12).mean())
    p = max(permutation, _welch(among[:n, :n], among[n:, n:]))
    return KindDifference(first, second, observed, p, len(permuted), exact, None)


def _round_robin(symmetric: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over pairs of N ≥ 3 runs, its variance and degrees of freedom, as in `interval_over_runs`."""
    n = len(symmetric)
    upper = np.triu_indices(n, 1)
    pairs = symmetric[upper]
    mean = float(pairs.mean())
    total = np.zeros(n)
    np.add.at(total, upper[0], pairs)
    np.add.at(total, upper[1], pairs)
    effect = (total / (n - 1) - mean) * (n - 1) / (n - 2)
    between = (n - 2) * float((effect**2).sum()) / (n - 1)  # estimate of (N − 2) σ_r² + σ_e²
    freedom_within = n * (n - 3) // 2
    left = pairs - mean - effect[upper[0]] - effect[upper[1]]
    within = float((left**2).sum()) / freedom_within if freedom_within else 0.0  # estimate of σ_e²
    if between >= within:
        weight = 4 / (n * (n - 2))
        parts = (weight * between, (2 / (n * (n - 1)) - weight) * within)
        variance = sum(parts)
        freedom = variance**2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / max(freedom_within, 1)) if variance else 1.0
    else:  # There is no run effect beyond the pair effect.
        freedom = n - 1 + freedom_within
        variance = 2 / (n * (n - 1)) * ((n - 1) * between + freedom_within * within) / freedom
    return mean, max(float(variance), 0.0) * n / (n - 1), max(float(freedom), 1.0)


def _note(symmetric: np.ndarray, names: Sequence[str]) -> str:
    """Return a note that names the outlying runs or, if there are none, how common an unseen kind of run could be."""
    n = len(symmetric)
    apart = runs_apart(symmetric)
    if not apart:
        unseen = 1 - SIGNIFICANT ** (1 / n)
        return f"assumes one kind of run: {n} runs could miss another kind that accounts for up to {unseen:.0%} of runs"
    rest = [at for at in range(n) if at not in apart]
    among = symmetric[np.ix_(rest, rest)]
    mean = among[np.triu_indices(len(rest), 1)].mean()
    who = ", ".join(names[at] for at in apart)
    verb = "stands" if len(apart) == 1 else "stand"
    return (
        f"{who} {verb} apart: mean similarity {symmetric[np.ix_(apart, rest)].mean():.3f} to the other {len(rest)} "
        f"runs, against {mean:.3f} among those, so this mean covers two kinds of runs"
    )


def _permuted(among: np.ndarray, n: int) -> np.ndarray:
    """Return the difference of within-kind means for all permutations, or for 9,999 samples and the observed one."""
    total = len(among)
    m = total - n

    def statistic(chosen: np.ndarray) -> float:
        inside = np.zeros(total)
        inside[chosen] = 1
        outside = 1 - inside
        return float(inside @ among @ inside / (n * (n - 1)) - outside @ among @ outside / (m * (m - 1)))

    if math.comb(total, n) <= _MOST_PERMUTATIONS:
        return np.array([statistic(np.array(c)) for c in itertools.combinations(range(total), n)])
    rng = np.random.default_rng(0)
    drawn = (statistic(rng.permutation(total)[:n]) for _ in range(_SAMPLED))
    return np.array([statistic(np.arange(n)), *drawn])


def _welch(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of Welch's test for equal mean similarity within two kinds of three or more runs."""
    (mean_a, var_a, free_a), (mean_b, var_b, free_b) = _round_robin(first), _round_robin(second)
    if var_a + var_b == 0:
        return float(mean_a == mean_b)
    freedom = (var_a + var_b) ** 2 / (var_a**2 / free_a + var_b**2 / free_b)
    return float(2 * stdtr(freedom, -abs(mean_a - mean_b) / math.sqrt(var_a + var_b)))


def _too_few(n: int, m: int, smaller: str) -> str:
    """Return why n and m runs, each at least 2, do not allow a test; an empty string if they do."""
    if min(n, m) < 3:
        which = "both kinds have only" if n == m else f"{smaller} has only"
        return f"{which} two runs, and one pair does not show how much pairs vary"
    distinct = math.comb(n + m, n)
    if (2 if n == m else 1) / distinct > SIGNIFICANT:
        return f"{n} and {m} runs have only {distinct} permutations, so no p-value could be as low as {SIGNIFICANT}"
    return ""


def _enough(n: int, m: int) -> str:
    """Return the smallest numbers of runs that allow a test (at least n and m), in words."""
    n, m = max(n, 3), max(m, 3)
    sizes = ((a, total - a) for total in itertools.count(n + m) for a in range(n, total - m + 1))
    return next(f"{a} and {b}" for a, b in sizes if not _too_few(a, b, ""))
