"""Populations of directions, and pairs of dictionaries with known shared latents.

A population draws n unit rows of width d. Properties that all its dictionaries have in common (axes, centers, blocks)
are fixed when it is made; everything else differs between draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Draw = Callable[[int, np.random.Generator], np.ndarray]
"""Function that takes n and a generator and returns float64 unit rows [n, d]."""


def unit(x: np.ndarray) -> np.ndarray:
    """Return the rows scaled to unit length."""
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def blurred(rows: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """Return unit rows at this cosine to `rows`, displaced in random directions."""
    away = rng.standard_normal(rows.shape)
    away -= (away * rows).sum(axis=1, keepdims=True) * rows
    return cosine * rows + np.sqrt(1 - cosine**2) * unit(away)


def _axes(d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(d).standard_normal((d, d)))[0]


def isotropic(d: int) -> Draw:
    """Return a population of directions uniform on the sphere."""
    return lambda n, rng: unit(rng.standard_normal((n, d)))


def spectrum(d: int, power: float, mean: float = 0.3) -> Draw:
    """Return a population with variances 1/k^power along fixed axes, around a common mean."""
    axes, scale = _axes(d), np.arange(1, d + 1) ** (-power / 2)
    center = unit(np.random.default_rng(d + 1).standard_normal((1, d)))
    return lambda n, rng: unit(
        np.sqrt(1 - mean**2) * unit(rng.standard_normal((n, d)) * scale) @ axes.T + mean * center
    )


def cones(d: int, n_means: int = 5, mean: float = 0.5) -> Draw:
    """Return a population whose latents lie around one of several means, with variances 1/√k along fixed axes."""
    around, centers = spectrum(d, 0.5, 0.0), unit(np.random.default_rng(d + 5).standard_normal((n_means, d)))
    return lambda n, rng: unit(np.sqrt(1 - mean**2) * around(n, rng) + mean * centers[rng.integers(0, n_means, n)])


def ring(d: int, share: float = 0.4, harmonics: int = 5, noise: float = 0.5) -> Draw:
    """Return a population with a share of rows near a closed curve that all dictionaries have in common."""
    axes, k = _axes(d)[:, : 2 * harmonics], np.arange(1, harmonics + 1)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x, angle = unit(rng.standard_normal((n, d))), 2 * np.pi * rng.random((n, 1))
        curve = unit(np.concatenate([np.cos(k * angle) / k, np.sin(k * angle) / k], axis=1)) @ axes.T
        return np.where(rng.random((n, 1)) < share, unit(curve + noise * x), x)

    return draw


def sparse(d: int, n_entries: int = 5) -> Draw:
    """Return a population with a few large coordinates in a fixed basis, and small noise in the others."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.permuted(np.tile(np.arange(d) < n_entries, (n, 1)), axis=1)
        return unit(rng.standard_normal((n, d)) * np.where(chosen, 1.0, 0.1 / np.sqrt(d)))

    return draw


def low_rank(d: int, rank: int = 10, share: float = 0.5) -> Draw:
    """Return a population with a share of the variance in a few dimensions."""
    axes, scale = _axes(d), np.full(d, np.sqrt((1 - share) / d))
    scale[:rank] += np.sqrt(share / rank)
    return lambda n, rng: unit(rng.standard_normal((n, d)) * scale) @ axes.T


def mixture(d: int, rank: int = 20, share: float = 0.3) -> Draw:
    """Return a population with a share of rows in a few dimensions and the others anywhere."""
    axes = _axes(d)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal((n, d)) / np.sqrt(d)
        few = np.flatnonzero(rng.random(n) < share)
        x[few] *= 0.15
        x[np.ix_(few, np.arange(rank))] += rng.standard_normal((len(few), rank)) / np.sqrt(rank)
        return unit(x) @ axes.T

    return draw


def families(
    d: int, n_families: int = 20, share: float = 0.3, cosine: float = 0.8, private: bool = False, zipf: float = 0.0
) -> Draw:
    """Return a population with a share of rows around a few centers, common to all dictionaries or private to each.

    The size of family k is proportional to 1/k^zipf.
    """
    common = unit(np.random.default_rng(d + 2).standard_normal((n_families, d)))
    family = np.repeat(np.arange(n_families), np.rint((n_families / np.arange(1, n_families + 1)) ** zipf).astype(int))

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        centers = unit(rng.standard_normal((n_families, d))) if private else common
        x = unit(rng.standard_normal((n, d)))
        members = np.flatnonzero(rng.random(n) < share)
        x[members] = blurred(centers[family[rng.integers(0, len(family), len(members))]], cosine, rng)
        return x

    return draw


def nested(d: int, n_families: int = 8, n_kinds: int = 6) -> Draw:
    """Return a population of families within families, with uneven spread."""
    rng = np.random.default_rng(d + 3)
    kinds = blurred(np.repeat(unit(rng.standard_normal((n_families, d))), n_kinds, axis=0), 0.7, rng)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = unit(rng.standard_normal((n, d)))
        for i in np.flatnonzero(rng.random(n) < 0.6):
            x[i] = blurred(kinds[rng.integers(len(kinds))][None], rng.uniform(0.5, 0.9), rng)[0]
        return x

    return draw


def heavy_tails(d: int, freedom: float = 3.0) -> Draw:
    """Return a population with Student's t coordinates along fixed axes, so that many latents lie near one axis."""
    axes = _axes(d)
    return lambda n, rng: unit(rng.standard_t(freedom, (n, d))) @ axes.T


def blocks(d: int, n_blocks: int = 8) -> Draw:
    """Return a population of directions that lie mostly in one of several blocks of coordinates."""
    width = d // n_blocks

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = 0.2 * rng.standard_normal((n, d)) / np.sqrt(d)
        for i, block in enumerate(rng.integers(0, n_blocks, n)):
            x[i, block * width : (block + 1) * width] += rng.standard_normal(width) / np.sqrt(width)
        return unit(x)

    return draw


def nonnegative(d: int) -> Draw:
    """Return a population with |Gaussian| coordinates, so that all latents have positive cosines."""
    return lambda n, rng: unit(np.abs(rng.standard_normal((n, d))))


def combinations(d: int, n_atoms: int = 60) -> Draw:
    """Return a population of noisy sums of two atoms, which all dictionaries have in common."""
    atoms = unit(np.random.default_rng(d + 4).standard_normal((n_atoms, d)))

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = 0.5 * unit(rng.standard_normal((n, d)))
        for _ in range(2):
            x += rng.uniform(0, 0.7, (n, 1)) * atoms[rng.integers(0, n_atoms, n)]
        return unit(x)

    return draw


def untrained(d: int, share: float = 0.5) -> Draw:
    """Return a population with a share of isotropic rows; the others have a spectrum."""
    trained, fresh = spectrum(d, 1.0), isotropic(d)

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x, other = trained(n, rng), fresh(n, rng)
        x[rng.random(n) < share] = 0.0
        return np.where(x.any(axis=1, keepdims=True), x, other)

    return draw


def repelled(population: Draw, pool: int = 2500) -> Draw:
    """Return a population that repels: cosines do not exceed the median nearest cosine of a pool of draws."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x = population(pool, rng)
        near = x @ x.T
        np.fill_diagonal(near, -1.0)
        limit = np.quantile(near.max(axis=1), 0.5)
        alive, kept = np.ones(pool, dtype=bool), []
        for i in range(pool):
            if alive[i]:
                kept.append(i)
                alive[near[i] > limit] = False
        return x[kept][:n]

    return draw


def duplicated(population: Draw, share: float = 0.2, noise: float = 0.0) -> Draw:
    """Return a population in which the last latents of a dictionary are copies of others."""

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        x, copies = population(n, rng), int(share * n)
        source = x[rng.choice(n - copies, copies, replace=False)]
        x[n - copies :] = source if noise == 0 else blurred(source, np.sqrt(1 - noise**2), rng)
        return x

    return draw


POPULATIONS: dict[str, Callable[[int], Draw]] = {
    "isotropic": isotropic,
    "spectrum 1/k^.5": lambda d: spectrum(d, 0.5),
    "spectrum 1/k": lambda d: spectrum(d, 1.0),
    "low rank": low_rank,
    "mixture": mixture,
    "families": families,
    "private families": lambda d: families(d, private=True),
    "Zipf families": lambda d: families(d, 60, 0.6, zipf=1.0),
    "nested families": nested,
    "cones": cones,
    "ring": ring,
    "sparse": sparse,
    "heavy tails": heavy_tails,
    "blocks": blocks,
    "nonnegative": nonnegative,
    "combinations": combinations,
    "untrained half": untrained,
    "copies": lambda d: duplicated(isotropic(d)),
    "near copies": lambda d: duplicated(mixture(d), 0.1, 0.05),
    "repelled spectrum 1/k": lambda d: repelled(spectrum(d, 1.0)),
    "repelled mixture": lambda d: repelled(mixture(d)),
}


@dataclass(frozen=True, eq=False)
class Pair:
    """Two dictionaries, float32 unit rows [n, d] and [m, d], with masks of their shared latents, bool [n] and [m]."""

    a: np.ndarray
    b: np.ndarray
    shared_a: np.ndarray
    shared_b: np.ndarray


def pair(population: Draw, sizes: tuple[int, int], share: float, cosine: float, seed: int) -> Pair:
    """Draw two dictionaries, and replace random latents of B with blurred copies of latents of A.

    Copies of a shared latent within its own dictionary count as shared, too.

    Args:
        population: the population of both.
        sizes: n and m.
        share: share of the smaller dictionary that is shared.
        cosine: cosine of shared latents.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    a, b = population(sizes[0], rng), population(sizes[1], rng)
    k = int(share * min(len(a), len(b)))
    rows, cols = rng.permutation(len(a))[:k], rng.permutation(len(b))[:k]
    b[cols] = blurred(a[rows], cosine, rng)
    a, b = a.astype(np.float32), b.astype(np.float32)
    return Pair(a, b, _with_copies(a, rows), _with_copies(b, cols))


def _with_copies(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    shared = np.zeros(len(x), dtype=bool)
    shared[rows] = True
    for part in np.array_split(np.flatnonzero(~shared), max(1, len(x) // 2048)):
        if len(rows):
            shared[part] = (x[part] @ x[rows].T).max(axis=1) > 0.99
    return shared
