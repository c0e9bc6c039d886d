"""The covariance-matched null: random directions with a dictionary's own mean and second moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sae_geometry.nulls.axes import Uneven, principal_axes, unit_rows
from sae_geometry.nulls.moments import matching_moments

_NODES = 192  # of the tables over w
_CHUNK = 512  # latents whose tables are held at once
_DRAWN = 1 << 22  # numbers drawn at once
_WORTH_A_THREAD = 256  # tails, some 30 µs each
_LEAST_DIMENSIONS = 4.0
_LARGEST_T = 1 - 1e-6


@dataclass(frozen=True, eq=False)
class MatchedNull:
    """g/|g| with g Gaussian, its moments such that the *directions* have the mean and second moment of a dictionary.

    Fewer directions than dimensions have fewer axes: r of them, and d − r dimensions beside, at right angles to all of
    them, in which g has one variance.

    Attributes:
        basis: float64 [d, r], principal axes of the dictionary's directions, one a column; r = d where there are at
            least as many directions as dimensions.
        mean: float64 [r], E[g] along the axes.
        variance: float64 [r], Var[g] along the axes, independent of each other.
        dimensions: (Σ e_k)² / Σ e_k² over the eigenvalues e of the directions' second moment: how many dimensions
            the directions fill, evenly.
        shrinkage: how far the covariance was moved to an isotropic one, 0 to 1: much where there are few directions.
        rest_variance: Var[g] in each of the d − r dimensions beside the axes, on average.
        rest_mean: float64 [d], E[g] in them, a vector at right angles to the axes; None where it is zero.
        uneven: how Var[g] differs between them, where too many directions in too many dimensions (more than 4,096 of
            both) leave axes unfound; None otherwise.
    """

    basis: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    dimensions: float
    shrinkage: float = 0.0
    rest_variance: float = 0.0
    rest_mean: np.ndarray | None = None
    uneven: Uneven | None = None

    @property
    def d_in(self) -> int:
        """d, the width."""
        return len(self.basis)

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
        # Not turned by a basis, the numbers would be those of any data of this seed.
        if 0 < len(self.mean) < self.d_in or self.shrinkage >= 1:
            rng = rng.spawn(1)[0]
        out = np.empty((n, self.d_in), dtype=np.float32)
        step = max(1, _DRAWN // self.d_in)
        for start in range(0, n, step):
            g = self._gaussian(rng, min(step, n - start))
            out[start : start + step] = g / np.linalg.norm(g, axis=1, keepdims=True)
        return out

    def _gaussian(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """g, [n, d]."""
        (d, r), even = self.basis.shape, np.sqrt(self.rest_variance)
        if r == d:
            return np.asarray((self.mean + np.sqrt(self.variance) * rng.standard_normal((n, d))) @ self.basis.T)
        if r == 0:
            return np.asarray(even * rng.standard_normal((n, d)) + (0.0 if self.rest_mean is None else self.rest_mean))
        z = rng.standard_normal((n, d), dtype=np.float32)
        basis = self.basis.astype(np.float32)
        along = z @ basis
        beside = z if self.uneven is None else self.uneven.draw(z, rng)
        # What `beside` has along the axes is replaced by what g has there.
        more = self.mean + np.sqrt(self.variance) * along - even * (along if beside is z else beside @ basis)
        g = even * beside + more.astype(np.float32) @ basis.T
        return np.asarray(g if self.rest_mean is None else g + self.rest_mean)

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
        unrelated latents are below 0.05, and with m = 100 d 5 %: the null is estimated from few directions. With m < d
        and crowded directions p is far too small: see the page on limits.

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
        _, variance, _ = self._groups()
        out = np.empty((2 if absolute else 1, *t.shape))

        def tables(rows: slice) -> tuple[np.ndarray, np.ndarray]:
            first, power, beside = self._coordinates(np.asarray(x[rows], dtype=np.float64))
            var = _tables(power * self.variance, self.variance, weight[: len(self.variance)])
            var += _table_beside(*beside, grid[1])
            return _tables(first, variance, weight), var

        def tails(rows: slice, mean: np.ndarray, var: np.ndarray) -> None:
            for sign, row in zip((1.0, -1.0), out, strict=False):
                log_tails_loop(t[rows], grid, zero, k0, sign * mean, var, row[rows])

        from sae_geometry.nulls.tail_loops import log_tails_loop

        if len(x) > _CHUNK:
            _on_all_cores(lambda rows: tails(rows, *tables(rows)), _cut(len(x), _CHUNK))
        else:  # the few rows are shared out, where that is worth a thread
            mean, var = tables(slice(0, len(x)))
            each = max(1, len(x)) if t.size < _WORTH_A_THREAD else max(1, -(-len(x) // (os.cpu_count() or 1)))
            _on_all_cores(lambda rows: tails(rows, mean[rows], var[rows]), _cut(len(x), each))
        return np.minimum(np.logaddexp(out[0], out[1]) if absolute else out[0], 0.0)

    def _groups(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """E[g]², Var[g] and how many dimensions, of each axis and of those beside them all; [groups]."""
        d, r = self.basis.shape
        mean2 = 0.0 if self.rest_mean is None else float(self.rest_mean @ self.rest_mean) / (d - r)
        return (
            _groups(self.mean**2, mean2, d),
            _groups(self.variance, self.rest_variance, d),
            _groups(np.ones(r), float(d - r), d),
        )

    def _coordinates(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """⟨x, E[g]⟩ along each axis and beside them all, [n, groups]; x² along each axis, [n, r]; and what x² is beside
        the axes and Var[g] there, towards x, [n] both.
        """
        alpha = x @ self.basis
        first, power = alpha * self.mean, alpha**2
        if len(self.mean) == self.d_in:
            return first, power, (np.zeros(len(x)), np.zeros(len(x)))
        first = np.column_stack([first, np.zeros(len(x)) if self.rest_mean is None else x @ self.rest_mean])
        beside = np.maximum((x**2).sum(axis=1) - power.sum(axis=1), 0.0)
        variance = np.full(len(x), self.rest_variance)
        if self.uneven is not None:
            variance *= self.uneven.relative_variance(x - alpha @ self.basis.T)
            variance = np.minimum(variance, self.variance.max())
        return first, power, (beside, variance)

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
        """What no latent changes: the grid, the index of τ = 0, 1/D [groups, G], and K₀ with its derivatives."""
        grid, zero = self._grid()
        _, variance, _ = self._groups()
        weight = 1 / (1 + 2 * grid[1] * variance[:, None])
        return grid, zero, weight, self._common(grid[1], weight)

    def _grid(self) -> tuple[np.ndarray, int]:
        """The nodes [3, G]: τ, w = w₀(e^τ − 1) and h·dw/dτ; and the index of τ = 0.

        From near −1/(2 max λ) up to where a cosine of 1 − 1e-6 is covered.
        """
        mean2, variance, count = self._groups()
        w0 = 0.45 / float(variance.max())
        top = np.log1p(self.d_in * 1e7 / (w0 * ((variance + mean2) * count).sum()))
        zero = int(np.ceil(2.5 * (_NODES - 1) / (top + 2.5)))
        h = top / (_NODES - 1 - zero)
        tau = (np.arange(_NODES) - zero) * h
        return np.stack([tau, w0 * np.expm1(tau), w0 * np.exp(tau) * h]), zero

    def _common(self, w: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """K₀, K₀′ and K₀″ at the nodes, [3, G]."""
        mu2, lam, many = (values[:, None] for values in self._groups())
        return np.stack(
            [
                (many * (0.5 * np.log(weight) - w * mu2 * weight)).sum(axis=0),
                -(many * (lam * weight + mu2 * weight**2)).sum(axis=0),
                (many * (2 * (lam * weight) ** 2 + 4 * mu2 * lam * weight**3)).sum(axis=0),
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
    return MatchedNull(np.empty((d, 0)), np.empty(0), np.empty(0), float(d), rest_variance=1 / d)


def fit_matched_null(directions: np.ndarray) -> MatchedNull:
    """The null whose directions have the mean and second moment of these: "random, but where the dictionary lives".

    y = g/|g| with g Gaussian. The axes are the principal axes of the rows' covariance, shrunk towards isotropy as far
    as m rows in d dimensions demand (`shrinkage`): without that, a dictionary of few latents would be most of its own
    null. Mean and variance of g along each axis are found such that E[y] and E[y yᵀ] are those along the axes (exact
    integrals, a fixed point). With rows that are isotropic this is the isotropic null.

    With m < d there are m − 1 axes at most, and d − m + 1 dimensions beside that share one variance and what of the
    mean lies there: time and memory grow with m²d and md. With m and d both above 4,096 the 1,024 leading axes are
    found, and the variance beside them for each x that is asked of: docs/limits.md says what that was measured to cost.

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
    rows = np.asarray(directions)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"a null is fitted to directions [m, d] with at least one row; got shape {rows.shape}")
    rows = unit_rows(rows)
    centre = rows.mean(axis=0, dtype=np.float64)
    axes = principal_axes(rows, centre)
    d, r = axes.basis.shape
    along = centre @ axes.basis
    aside = centre - axes.basis @ along  # E[y] in the dimensions beside the axes: shared by them evenly
    length = float(np.linalg.norm(aside)) / max(d - r, 1) ** 0.5
    along, spread = _groups(along, length, d), _groups(axes.variance, axes.rest, d)
    count = _groups(np.ones(r), float(d - r), d)
    second = spread + along**2
    # Σ e² = ‖M‖² of M = the covariance, diagonal along the axes, and the outer product of the mean with itself.
    squares = axes.squares + 2 * (count * spread * along**2).sum() + (count * along**2).sum() ** 2
    dimensions = float((count * second).sum() ** 2 / squares)
    mean, variance = along, spread
    if dimensions >= _LEAST_DIMENSIONS:
        mean, variance = matching_moments(along, second, count)
    if r == d:
        return MatchedNull(axes.basis, mean, variance, dimensions, axes.shrinkage)
    turned = aside * (mean[r] / length) if length > 0 else None
    return MatchedNull(
        axes.basis, mean[:r], variance[:r], dimensions, axes.shrinkage, float(variance[r]), turned, axes.uneven
    )


def _groups(along: np.ndarray, beside: float, d: int) -> np.ndarray:
    """A value for each axis and, where the axes are fewer than d, one for the dimensions beside them."""
    return np.append(along, beside) if len(along) < d else along


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


def _table_beside(power: np.ndarray, variance: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The same, [n, 2, G], for one term a row whose variance is the row's own."""
    weight = 1 / (1 + 2 * w * variance[:, None])
    first = (power * variance)[:, None] * weight
    return np.stack([first, -2 * first * variance[:, None] * weight], axis=1)


def _any_of(m: int, log_tail: np.ndarray) -> np.ndarray:
    """1 − (1 − q)^m for q = e^log_tail."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(m * np.log1p(-np.exp(np.minimum(log_tail, 0.0)))))
