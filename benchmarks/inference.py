"""Measure coverage, size and power of the inference over runs on simulated runs; print RESULTS_inference.md's tables.

    python benchmarks/inference.py                # everything, minutes
    python benchmarks/inference.py intervals      # or latents, kinds, forecasts, distinct

Populations are functions of a generator and a number of runs, each paired with the value that an interval should
contain. A few draws of each run as tests (tests/comparisons/test_inference.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np

from sae_geometry.comparisons.inference import (
    Interval,
    interval_both_ways,
    interval_over_runs,
    kind_difference,
    runs_apart,
)
from sae_geometry.comparisons.rarefaction import rarefaction

Draw = Callable[[np.random.Generator, int], np.ndarray]
NUMBERS = (3, 4, 6, 10)


def between(rng: np.random.Generator, level: np.ndarray, runs: float, pairs: float) -> np.ndarray:
    """Return a symmetric [N, N] matrix of the level plus random effects of runs and pairs with these deviations."""
    n = len(level)
    effect, own = runs * rng.standard_normal(n), np.triu(pairs * rng.standard_normal((n, n)), 1)
    return level + effect[:, None] + effect[None, :] + own + own.T


def plain(mean: float, runs: float, pairs: float) -> tuple[float, Draw]:
    """Return the mean share and a draw of runs and pairs that differ by degrees; no share exceeds 1."""
    return mean, lambda rng, n: np.minimum(between(rng, np.full((n, n), mean), runs, pairs), 1)


def uneven(quality: Callable[[np.random.Generator, int], np.ndarray], mean: float) -> tuple[float, Draw]:
    """Return the mean share and a draw in which shares are products of runs' independent qualities of this mean."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        q = quality(rng, n)
        return np.clip(between(rng, np.outer(q, q), 0, 0.01), 0, 1)

    return mean**2, draw


def basins(weights: tuple[float, ...], high: float = 0.8, low: float = 0.3) -> tuple[float, Draw]:
    """Return the mean share and a draw in which runs fall into basins and pairs within one basin share more."""
    p = np.array(weights)
    together = float((p**2).sum())

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        where = rng.choice(len(p), n, p=p)
        return between(rng, np.where(where[:, None] == where[None, :], high, low), 0, 0.02)

    return together * high + (1 - together) * low, draw


def one_failed(high: float = 0.8, low: float = 0.1) -> tuple[None, Draw]:
    """Return a draw in which the first run failed and resembles none of the others, which resemble one another."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        level = np.full((n, n), high)
        level[0] = level[:, 0] = low
        return between(rng, level, 0.01, 0.02)

    return None, draw


OVER_RUNS: dict[str, tuple[float | None, Draw]] = {
    "plain, runs vary": plain(0.75, 0.02, 0.01),
    "plain, pairs vary": plain(0.75, 0.005, 0.03),
    "plain, near 1": plain(0.95, 0.01, 0.005),
    "uneven quality, U(.3, 1)": uneven(lambda rng, n: rng.uniform(0.3, 1, n), 0.65),
    "uneven quality, U(.6, 1)": uneven(lambda rng, n: rng.uniform(0.6, 1, n), 0.8),
    "uneven quality, Beta(5, 1)": uneven(lambda rng, n: rng.beta(5, 1, n), 5 / 6),
    "uneven quality, Beta(2, 2)": uneven(lambda rng, n: rng.beta(2, 2, n), 0.5),
    "two basins": basins((0.5, 0.5)),
    "three basins": basins((1 / 3, 1 / 3, 1 / 3)),
    "two basins, 7 to 3": basins((0.7, 0.3)),
    "one failed run": one_failed(),
}


def intervals_of(case: str, n: int, draws: int) -> Iterator[tuple[Interval, bool, float]]:
    """Yield for each draw the interval, whether only the first run is named as an outlier, and the true value.

    With one failed run, the true value is the mean over pairs of a population in which one run in n fails.
    """
    truth, draw = OVER_RUNS[case]
    rng = np.random.default_rng([n, list(OVER_RUNS).index(case)])
    for _ in range(draws):
        matrix = draw(rng, n)
        held = (1 - 1 / n) ** 2 * 0.8 + (1 - (1 - 1 / n) ** 2) * 0.1 if truth is None else truth
        yield interval_over_runs(matrix), runs_apart(matrix) == [0], held


def two_ways(rng: np.random.Generator, n: int, m: int, d: int, shared: int) -> tuple[float, Interval]:
    """Draw two dictionaries that share latents at cosines of .3 to 1; return the mean of both MMCS and its interval."""

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))

    a, b = unit(rng.standard_normal((n, d))), unit(rng.standard_normal((m, d)))
    b[:shared] = blurred(a[:shared], rng.uniform(0.3, 1, shared), rng)
    cosine = a @ b.T
    both = [cosine.max(axis=1), cosine.max(axis=0)]
    means = [float(x.mean()) for x in both]
    return sum(means) / 2, interval_both_ways(means, [float(x.std(ddof=1)) for x in both], [n, m])


def blurred(rows: np.ndarray, cosine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return unit rows at these cosines to the given unit rows."""
    aside = rng.standard_normal(rows.shape)
    aside -= (aside * rows).sum(axis=1, keepdims=True) * rows
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(cosine[:, None] * rows + np.sqrt(1 - cosine**2)[:, None] * aside)


def p_of_kinds(
    rng: np.random.Generator, sizes: tuple[int, int], means: tuple[float, float], spreads: tuple[float, float]
) -> float:
    """Return p for two kinds of runs with these means within a kind, .4 across, and these deviations of runs."""
    kind = np.repeat([0, 1], sizes)
    level = np.where(kind[:, None] == kind[None, :], np.array(means)[kind][:, None], 0.4)
    matrix = between(rng, level, 0.0, 0.01)
    effect = np.array(spreads)[kind] * rng.standard_normal(len(kind))
    matrix = matrix + effect[:, None] + effect[None, :]
    return kind_difference(matrix, ["ab"[k] for k in kind], "a", "b").p_value


COMMUNITIES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "equal, .33": lambda rng, n: np.full(n, 0.33),
    "equal, .8": lambda rng, n: np.full(n, 0.8),
    "Beta(1, 2)": lambda rng, n: rng.beta(1.0, 2.0, n),
    "most by one or by all": lambda rng, n: np.where(rng.random(n) < 0.45, rng.beta(0.6, 6, n), rng.beta(2, 0.6, n)),
    "rare tail, Beta(.3, 3)": lambda rng, n: rng.beta(0.3, 3, n),
    "half always, half .05": lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, 0.05),
    "six in ten always, others .2": lambda rng, n: np.where(rng.random(n) < 0.6, 0.99, 0.2),
}


def forecast(rng: np.random.Generator, case: str, n: int, size: int) -> tuple[bool, float, float]:
    """Extrapolate N runs to 2N; return whether the interval holds the truth, and its relative width and error."""
    found = rng.random((size, 2 * n)) < COMMUNITIES[case](rng, size)[:, None]
    counts = np.bincount(found[:, :n].sum(axis=1), minlength=n + 1)[1:]
    truth = int(found.any(axis=1).sum())
    made = rarefaction(counts)
    low, high = made.further_low[-1], made.further_high[-1]
    return bool(low <= truth <= high), float(high - low) / truth, float(made.further[-1]) / truth - 1


def noisy_runs(
    rng: np.random.Generator, n_runs: int, features: int, d: int, *, fidelity: tuple[float, float], private: int = 0
) -> tuple[list[np.ndarray], int]:
    """Draw runs of noisy features and private latents; return their rows and the number of distinct latents.

    The probability that a run finds a feature is drawn from Beta(2, 2). Its copy has a cosine within `fidelity` to the
    feature, so the cosine of two copies is about the product of two such cosines.
    """
    true = rng.standard_normal((features, d))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    found = rng.random((features, n_runs)) < rng.beta(2, 2, features)[:, None]
    runs = []
    for k in range(n_runs):
        mine = true[found[:, k]]
        own = rng.standard_normal((private, d))
        rows = np.concatenate([blurred(mine, rng.uniform(*fidelity, len(mine)), rng), own])
        runs.append(rows[rng.permutation(len(rows))].astype(np.float32))
    return runs, int(found.any(axis=1).sum()) + private * n_runs


def _row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _intervals(draws: int = 1000) -> None:
    _row("runs are", *(f"N = {n}" for n in NUMBERS))
    _row("---", *("---" for _ in NUMBERS))
    for case in OVER_RUNS:
        cells = []
        for n in NUMBERS:
            made = list(intervals_of(case, n, draws))
            held = np.mean([i.low <= truth <= i.high for i, _, truth in made])
            width = np.mean([i.high - i.low for i, _, _ in made])
            named = np.mean([apart for _, apart, _ in made])
            cells.append(f"{held:.3f} ({width:.2f})" + (f", named {named:.2f}" if case == "one failed run" else ""))
        _row(case, *cells)


def _latents(draws: int = 1000) -> None:
    _row("latents", "dimensions", "shared", "coverage")
    _row("---", "---", "---", "---")
    for n, m, d, shared in ((60, 60, 32, 60), (60, 60, 32, 30), (40, 80, 32, 20), (100, 100, 32, 0), (20, 20, 16, 20)):
        rng = np.random.default_rng([n, m, d, shared])
        made = [two_ways(rng, n, m, d, shared) for _ in range(draws)]
        truth = np.mean([mean for mean, _ in made])
        _row(f"{n}, {m}", d, shared, f"{np.mean([i.low <= truth <= i.high for _, i in made]):.3f}")


def _kinds(draws: int = 400) -> None:
    _row("runs", ".74 v .60, runs ± .01", ".74 v .60, ± .02", "equal", "first varies 6×", "second varies 6×")
    _row(*["---"] * 6)
    for sizes in ((3, 4), (3, 6), (6, 3), (4, 4), (4, 8), (5, 5), (3, 10)):
        cells = []
        for means, spreads in (
            ((0.74, 0.60), (0.01, 0.01)),
            ((0.74, 0.60), (0.02, 0.02)),
            ((0.7, 0.7), (0.02, 0.02)),
            ((0.7, 0.7), (0.06, 0.01)),
            ((0.7, 0.7), (0.01, 0.06)),
        ):
            rng = np.random.default_rng([*sizes, round(1000 * spreads[0])])
            cells.append(f"{np.mean([p_of_kinds(rng, sizes, means, spreads) <= 0.05 for _ in range(draws)]):.3f}")
        _row(f"{sizes[0]} and {sizes[1]}", *cells)


def _forecasts(draws: int = 50) -> None:
    _row("chances of being found", *(f"N = {n}" for n in NUMBERS))
    _row("---", *("---" for _ in NUMBERS))
    for case in COMMUNITIES:
        cells = []
        for n in NUMBERS:
            rng = np.random.default_rng([n, list(COMMUNITIES).index(case)])
            held, width, off = np.mean([forecast(rng, case, n, 600) for _ in range(draws)], axis=0)
            cells.append(f"{held:.2f} (width {width:.2f}, off {off:+.3f})")
        _row(case, *cells)


def _distinct(draws: int = 3) -> None:
    import sae_geometry as sg

    _row("runs", "features", "dimensions", "cosines to the feature", "private latents", "distinct", "counted")
    _row(*["---"] * 7)
    for n, features, d, low, private in (
        (2, 150, 128, 0.75, 30), (4, 150, 128, 0.75, 0), (4, 150, 128, 0.75, 50), (6, 150, 128, 0.75, 0),
        (5, 150, 128, 0.6, 0), (4, 150, 64, 0.75, 0), (4, 150, 32, 0.75, 0),
    ):  # fmt: skip
        rng = np.random.default_rng([n, features, d, private])
        made = []
        for _ in range(draws):
            runs, true = noisy_runs(rng, n, features, d, fidelity=(low, 0.95), private=private)
            own = [sg.Dictionary.from_decoder(r, latent_axis=0, name=f"r{k}") for k, r in enumerate(runs)]
            made.append((true, sg.seeds(own, allow_mismatch=True).rarefaction.n_distinct))
        true, counted = np.mean(made, axis=0)
        _row(n, features, d, f"{low} to 0.95", private, f"{true:.1f}", f"{counted:.1f}")


if __name__ == "__main__":
    parts = {
        "intervals": _intervals,
        "latents": _latents,
        "kinds": _kinds,
        "forecasts": _forecasts,
        "distinct": _distinct,
    }
    for name in sys.argv[1:] or parts:
        print(f"\n## {name}\n")
        parts[name]()
