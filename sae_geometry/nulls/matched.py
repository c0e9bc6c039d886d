"""The covariance-matched null: random directions with a dictionary's own mean and second moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_NODES = 192  # of the tables over w
_CHUNK = 512  # latents whose tables are held at once
_WORTH_A_THREAD = 256  # tails, some 30 µs each
_MATCHING_ROUNDS = 30
_LEAST_DIMENSIONS = 4.0
_LARGEST_T = 1 - 1e-6


@dataclass(frozen=True, eq=False)
class MatchedNull:
    """g/|g| with g Gaussian, its moments such that the *directions* have the mean and second moment of a dictionary.

    Attributes:
        basis: float64 [d, d], principal axes of the dictionary's directions, one a column.
        mean: float64 [d], E[g] along the axes.
        variance: float64 [d], Var[g] along the axes, independent of each other.
        dimensions: (Σ e_k)² / Σ e_k² over the eigenvalues e of the directions' second moment: how many dimensions
            the directions fill, evenly.
        shrinkage: how far the covariance was moved to an isotropic one, 0 to 1: much where there are few directions.
    """

    basis: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    dimensions: float
    shrinkage: float = 0.0

    @property
    def d_in(self) -> int:
        """d, the width."""
        return len(self.mean)

    @property
    def has_tail(self) -> bool:
        """Whether the directions fill enough dimensions (at least four) for a tail to be computed."""
        return self.dimensions >= _LEAST_DIMENSIONS

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """float32 [n, d]: n unit directions of the null, the same for the same seed.

        Example:
            >>> import numpy as np, sae_geometry as sg
            >>> sg.fit_matched_null(np.eye(16)).sample(3).shape
            (3, 16)
        """
        rng = np.random.default_rng(seed)
        g = self.mean + np.sqrt(self.variance) * rng.standard_normal((n, self.d_in))
        g = g @ self.basis.T
        return np.asarray(g / np.linalg.norm(g, axis=1, keepdims=True), dtype=np.float32)

    def log_tail(self, x: np.ndarray, t: np.ndarray, *, absolute: bool = False) -> np.ndarray:
        """ln P(cos(x_i, y) ≥ t_i) (or |cos|) for a direction y of the null; float64 [n].

        By a saddlepoint approximation within an integral (see `tail_loops`): the probability is right to about 2 %
        from 16 dimensions, far into the tail, where sampling cannot reach.

        Args:
            x: unit rows [n, d].
            t: [n].
            absolute: |cos| instead of cos.

        Raises:
            ValueError: the null fills fewer than four dimensions.
        """
        return self._log_tails(x, np.asarray(t, dtype=np.float64)[:, None], absolute)[:, 0]

    def p_values(
        self, x: np.ndarray, similarity: np.ndarray, *, n_candidates: int, absolute: bool = False
    ) -> np.ndarray:
        """P(max over j ≤ m of cos(x_i, y_j) ≥ s_i) for m independent directions y of the null; float64 [n].

        Small where x_i has a neighbour closer than the best of m random ones. nan where s_i is, and everywhere
        where the null has no tail. In simulations of crowded dictionaries with m = 20 d, 5 to 7 % of the p-values of
        unrelated latents are below 0.05, and with m = 100 d 5 %: the null is estimated from few directions.

        Args:
            x: unit rows [n, d].
            similarity: s [n], the similarity to the nearest (or to any partner, which makes p conservative).
            n_candidates: m.
            absolute: |cos| instead of cos.
        """
        p = np.full(len(x), np.nan)
        known = ~np.isnan(similarity)
        if self.has_tail and n_candidates >= 1 and known.any():
            log_tail = self.log_tail(x[known], similarity[known], absolute=absolute)
            p[known] = _any_of(n_candidates, log_tail)
        return p

    def expected_max(self, x: np.ndarray, *, n_candidates: int, absolute: bool = False, at_most: int = 256) -> float:
        """Mean over i of E[max over j ≤ m of cos(x_i, y_j)], y independent directions of the null.

        Over `at_most` rows of x, evenly spaced, by E[max] = lo + ∫ P(max ≥ t) dt; nan where the null has no tail.

        Args:
            x: unit rows [n, d].
            n_candidates: m.
            absolute: |cos| instead of cos.
            at_most: how many rows to average over.
        """
        if not self.has_tail or n_candidates < 1 or len(x) == 0:
            return float("nan")
        few = x[spread(len(x), 8)]
        coarse = np.linspace(0.0 if absolute else -1.0, 1.0, 61)
        tails = self.exceeding(few, coarse, n_candidates=n_candidates, absolute=absolute)
        rising = np.flatnonzero((tails.min(axis=0) < 1 - 1e-6) & (tails.max(axis=0) > 1e-6))
        low, high = coarse[max(rising[0] - 2, 0)], coarse[min(rising[-1] + 2, len(coarse) - 1)]
        grid = np.linspace(low, high, 41)
        tails = self.exceeding(x[spread(len(x), at_most)], grid, n_candidates=n_candidates, absolute=absolute)
        return float(np.mean(low + np.trapezoid(tails, grid, axis=1)))

    def exceeding(self, x: np.ndarray, t: np.ndarray, *, n_candidates: int, absolute: bool = False) -> np.ndarray:
        """P(max over j ≤ m of cos(x_i, y_j) ≥ t_k) for m independent directions y of the null; float64 [n, T].

        Args:
            x: unit rows [n, d].
            t: thresholds [T].
            n_candidates: m.
            absolute: |cos| instead of cos.

        Raises:
            ValueError: the null fills fewer than four dimensions.
        """
        return _any_of(n_candidates, self._log_tails(x, np.broadcast_to(t, (len(x), len(t))), absolute))

    def _log_tails(self, x: np.ndarray, t: np.ndarray, absolute: bool) -> np.ndarray:
        """ln P(cos(x_i, y) ≥ t_ij) (or |cos|), [n, T]; chunks of rows run on the machine's cores."""
        if not self.has_tail:
            raise ValueError(
                f"the directions fill {self.dimensions:.1f} dimensions; a tail needs at least {_LEAST_DIMENSIONS:g}"
            )
        t = np.clip(t, 0.0 if absolute else -_LARGEST_T, _LARGEST_T)
        grid, zero, weight, k0 = self._nodes
        out = np.empty((2 if absolute else 1, *t.shape))

        def tables(rows: slice) -> tuple[np.ndarray, np.ndarray]:
            alpha = np.asarray(x[rows], dtype=np.float64) @ self.basis
            return (
                _tables(alpha * self.mean, self.variance, weight),
                _tables(alpha**2 * self.variance, self.variance, weight),
            )

        def tails(rows: slice, mean: np.ndarray, var: np.ndarray) -> None:
            for sign, row in zip((1.0, -1.0), out, strict=False):
                log_tails_loop(t[rows], grid, zero, k0, sign * mean, var, row[rows])

        from sae_geometry.nulls.tail_loops import log_tails_loop

        if len(x) > _CHUNK:
            _on_all_cores(lambda rows: tails(rows, *tables(rows)), _cut(len(x), _CHUNK))
        else:  # the few rows are shared out, where that is worth a thread
            mean, var = tables(slice(0, len(x)))
            each = len(x) if t.size < _WORTH_A_THREAD else -(-len(x) // (os.cpu_count() or 1))
            _on_all_cores(lambda rows: tails(rows, mean[rows], var[rows]), _cut(len(x), each))
        return np.minimum(np.logaddexp(out[0], out[1]) if absolute else out[0], 0.0)

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
        """What does not depend on the latents: the grid, the index of τ = 0, 1/D [d, G], and K₀ with derivatives."""
        grid, zero = self._grid()
        weight = 1 / (1 + 2 * grid[1] * self.variance[:, None])
        return grid, zero, weight, self._common(grid[1], weight)

    def _grid(self) -> tuple[np.ndarray, int]:
        """The nodes [3, G]: τ, w = w₀(e^τ − 1) and h·dw/dτ; and the index of τ = 0.

        From near −1/(2 max λ) up to where a cosine of 1 − 1e-6 is covered.
        """
        w0 = 0.45 / float(self.variance.max())
        top = np.log1p(self.d_in * 1e7 / (w0 * (self.variance.sum() + (self.mean**2).sum())))
        zero = int(np.ceil(2.5 * (_NODES - 1) / (top + 2.5)))
        h = top / (_NODES - 1 - zero)
        tau = (np.arange(_NODES) - zero) * h
        return np.stack([tau, w0 * np.expm1(tau), w0 * np.exp(tau) * h]), zero

    def _common(self, w: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """K₀, K₀′ and K₀″ at the nodes, [3, G]."""
        lam, mu2 = self.variance[:, None], self.mean[:, None] ** 2
        return np.stack(
            [
                (0.5 * np.log(weight) - w * mu2 * weight).sum(axis=0),
                -(lam * weight + mu2 * weight**2).sum(axis=0),
                (2 * (lam * weight) ** 2 + 4 * mu2 * lam * weight**3).sum(axis=0),
            ]
        )


def isotropic_null(d: int) -> MatchedNull:
    """The null of directions without any preference: uniform on the sphere.

    Args:
        d: dimensions.

    Raises:
        ValueError: no dimensions.

    Example:
        >>> from sae_geometry.nulls import isotropic_null
        >>> isotropic_null(64).sample(5).shape
        (5, 64)
    """
    if d < 1:
        raise ValueError(f"directions need at least one dimension; got {d}")
    return MatchedNull(np.eye(d), np.zeros(d), np.full(d, 1 / d), float(d))


def fit_matched_null(directions: np.ndarray) -> MatchedNull:
    """The null whose directions have the mean and second moment of these: "random, but where the dictionary lives".

    y = g/|g| with g Gaussian. The axes are the principal axes of the rows' covariance, shrunk towards isotropy as far
    as m rows in d dimensions demand (`shrinkage`): without that, a dictionary of few latents would be most of its own
    null. Mean and variance of g along each axis are found such that E[y] and E[y yᵀ] are those along the axes (exact
    integrals, a fixed point). With rows that are isotropic this is the isotropic null.

    Args:
        directions: unit rows [m, d].

    Raises:
        ValueError: no rows.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> null = sg.fit_matched_null(np.random.default_rng(0).standard_normal((400, 32)))
        >>> bool(null.dimensions > 25)
        True
    """
    rows = np.asarray(directions, dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"a null is fitted to directions [m, d] with at least one row; got shape {rows.shape}")
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centre = rows.mean(axis=0)
    covariance = rows.T @ rows / len(rows) - np.outer(centre, centre)
    share = shrinkage(rows - centre, covariance)
    covariance = (1 - share) * covariance + share * np.eye(len(centre)) * np.trace(covariance) / len(centre)
    spread, basis = np.linalg.eigh(covariance)
    spread = np.maximum(spread, 0.0)
    along = centre @ basis
    second = spread + along**2
    dimensions = float(second.sum() ** 2 / ((covariance + np.outer(centre, centre)) ** 2).sum())  # Σ e² = ‖M‖²
    mean, variance = along.copy(), spread.copy()
    if dimensions >= _LEAST_DIMENSIONS:
        mean, variance = _matching_moments(along, second)
    return MatchedNull(basis=basis, mean=mean, variance=variance, dimensions=dimensions, shrinkage=share)


def shrinkage(centred: np.ndarray, covariance: np.ndarray) -> float:
    """How far a sample covariance S should move to μI, μ = tr S / d, to come closest to the population's; in [0, 1].

    β/δ with δ = ‖S − μI‖² and β = min(δ, Σ_k ‖x_k x_kᵀ − S‖² / m²). (Ledoit & Wolf 2004.)

    Args:
        centred: x, rows [m, d] whose mean is zero.
        covariance: S, [d, d].
    """
    m, d = centred.shape
    delta = float((covariance**2).sum() - np.trace(covariance) ** 2 / d)
    scatter = float(((centred**2).sum(axis=1) ** 2).sum() / m - (covariance**2).sum())
    return 0.0 if delta <= 0 else min(1.0, max(0.0, scatter / m) / delta)


def _matching_moments(along: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of g with E[g_k/|g|] = along_k and E[g_k²/|g|²] = second_k, by multiplicative updates.

    1/ρ = ∫ e^{−wρ} dw and 1/√ρ = ∫ e^{−wρ} (πw)^{−½} dw over w > 0, under which the coordinates stay independent
    Gaussians: E[g_k²/ρ] = ∫ e^{K₀} (λ_k/D_k + μ_k²/D_k²) dw, E[g_k/√ρ] = ∫ e^{K₀} (πw)^{−½} μ_k/D_k dw.
    """
    mean, variance = along.copy(), np.maximum(second - along**2, 0.0)
    total = (mean**2).sum() + variance.sum()
    z = np.linspace(-14.0, 9.0, 240)  # ln w, about the scale of 1/E[ρ]
    for _ in range(_MATCHING_ROUNDS):
        scale = (mean**2).sum() + variance.sum()
        mean, variance = mean * np.sqrt(total / scale), variance * (total / scale)
        w = np.exp(z) / total
        weight = 1 / (1 + 2 * w * variance[:, None])
        log_m = (0.5 * np.log(weight) - w * mean[:, None] ** 2 * weight).sum(axis=0)
        mass = np.exp(log_m) * w * (z[1] - z[0])
        got_second = (variance[:, None] * weight + mean[:, None] ** 2 * weight**2) @ mass
        got_first = (mean[:, None] * weight) @ (mass / np.sqrt(np.pi * w))
        with np.errstate(divide="ignore", invalid="ignore"):
            grown = np.where(got_second > 0, second / got_second, 1.0)
            turned = np.where(got_first != 0, along / got_first, 1.0)
        new_mean = mean * np.clip(turned, 0.5, 2.0)
        power = (variance + mean**2) * np.clip(grown, 0.5, 2.0)
        new_variance = np.maximum(power - new_mean**2, 0.05 * variance)
        change = np.abs(new_variance - variance).max() / max(variance.max(), 1e-300)
        mean, variance = new_mean, new_variance
        if change < 1e-6:
            break
    return mean, variance


def _cut(n: int, each: int) -> list[slice]:
    """The n first whole numbers, so many at a time."""
    return [slice(start, min(start + each, n)) for start in range(0, n, each)]


def _on_all_cores(do: Callable[[slice], None], parts: list[slice]) -> None:
    if len(parts) == 1:
        do(parts[0])
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(do, parts))


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the indices below n, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))


def _tables(first: np.ndarray, variance: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[n, 2, G]: Σ_k first_ik / D_k and its derivative in w, −2 Σ_k first_ik λ_k / D_k²."""
    return np.stack([first @ weight, -2 * (first * variance) @ weight**2], axis=1)


def _any_of(m: int, log_tail: np.ndarray) -> np.ndarray:
    """1 − (1 − q)^m for q = e^log_tail."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(m * np.log1p(-np.exp(np.minimum(log_tail, 0.0)))))
