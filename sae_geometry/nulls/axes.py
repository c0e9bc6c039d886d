"""The axes along which directions vary, and how much: few of them where there are fewer directions than dimensions.

The covariance S of m rows has rank m − 1 at most. Moved towards isotropy, (1 − s)S + sμI, it has m − 1 axes of its own,
and one variance sμ in every direction at right angles to them. That is all there is to know of it, and it is found
from the m × m matrix of inner products, which has S's eigenvalues. Where neither m nor d is small the leading axes
alone are found, and beside them the variance is that of S towards whatever one looks at: exact for each direction, but
no longer split into axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

EXACT = 4096  # rows or dimensions, the fewer of them, up to which every axis is found
LEADING = 1024  # axes found beyond that
_ROUNDS = 3  # of subspace iteration
_BLOCK = 1024
_NOTHING = 1e-10  # of the largest variance: below that a row space has no axis


@dataclass(frozen=True, eq=False)
class Uneven:
    """Rows whose covariance is not the same in every direction beside the axes that were found.

    Attributes:
        rows: float32 unit rows [m, d].
        share: (1 − s), what is left of their covariance when it is shrunk.
        even: sμ, the variance that shrinking gives to every direction.
        mean: the variance of both in one of the dimensions beside the axes, on average.
    """

    rows: np.ndarray
    share: float
    even: float
    mean: float

    def relative_variance(self, x: np.ndarray) -> np.ndarray:
        """Variance towards each row of x, at right angles to the axes and of any length, over `mean`; float64 [n]."""
        power = np.einsum("ij,ij->i", x, x, dtype=np.float64)
        towards = x.astype(np.float32) @ self.rows.T
        power = np.maximum(power, 1e-30)
        spread = np.einsum("ij,ij->i", towards, towards, dtype=np.float64) / len(self.rows) / power
        return (self.share * spread + self.even) / self.mean

    def draw(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Gaussian [n, d], of this covariance over `mean`, from standard normal z [n, d]; right at right angles to the
        axes only.
        """
        m = len(self.rows)
        weights = rng.standard_normal((len(z), m), dtype=np.float32) * np.float32((self.share / m / self.mean) ** 0.5)
        return np.asarray(np.float32((self.even / self.mean) ** 0.5) * z + weights @ self.rows)


@dataclass(frozen=True, eq=False)
class Axes:
    """A covariance as r orthonormal axes, and what is beside them.

    Attributes:
        basis: float64 [d, r], the axes, one a column.
        variance: float64 [r], along the axes.
        rest: the variance in each of the d − r dimensions at right angles to all of them, on average.
        squares: the sum of the squared eigenvalues of the covariance, those beside the axes too.
        shrinkage: how far the covariance was moved to an isotropic one, 0 to 1.
        uneven: how it differs between them; None where it does not.
    """

    basis: np.ndarray
    variance: np.ndarray
    rest: float
    squares: float
    shrinkage: float
    uneven: Uneven | None = None


def principal_axes(rows: np.ndarray, centre: np.ndarray) -> Axes:
    """The principal axes of the rows' covariance, shrunk towards isotropy.

    Args:
        rows: unit rows [m, d]; overwritten where they are fewer than dimensions, to save a copy.
        centre: their mean, [d].
    """
    m, d = rows.shape
    if min(m, d) > EXACT:
        return _leading(rows, centre)
    if d <= m:
        covariance = rows.T @ rows / m - np.outer(centre, centre)
        share = shrinkage(rows - centre, covariance)
        covariance = (1 - share) * covariance + share * np.eye(d) * np.trace(covariance) / d
        variance, basis = np.linalg.eigh(covariance)
        return Axes(basis, np.maximum(variance, 0.0), 0.0, float((covariance**2).sum()), share)
    return _of_few_rows(np.subtract(rows, centre, out=rows))


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """The rows normalised: float64 where all their axes will be found, float32 where there are too many."""
    few = min(rows.shape) <= EXACT
    if not few and rows.dtype == np.float32 and np.abs(np.einsum("ij,ij->i", rows, rows) - 1).max() < 1e-5:
        return rows
    unit: np.ndarray = rows.astype(np.float64 if few else np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    return np.divide(unit, length[:, None], out=unit)


def shrinkage(centred: np.ndarray, covariance: np.ndarray) -> float:
    """How far a sample covariance S should move to μI, μ = tr S / d, to come closest to the population's; in [0, 1].

    β/δ with δ = ‖S − μI‖² and β = min(δ, Σ_k ‖x_k x_kᵀ − S‖² / m²). (Ledoit & Wolf 2004.)

    Args:
        centred: x, rows [m, d] whose mean is zero.
        covariance: S, [d, d]; or x xᵀ / m, [m, m], which has the same trace and norm.
    """
    return _share(np.einsum("ij,ij->i", centred, centred), float((covariance**2).sum()), centred.shape[1])


def _share(power: np.ndarray, norm2: float, d: int) -> float:
    """`shrinkage` from the rows' squared lengths and ‖S‖²."""
    m = len(power)
    delta = norm2 - float(power.sum() / m) ** 2 / d
    scatter = float((power**2).sum() / m) - norm2
    return 0.0 if delta <= 0 else min(1.0, max(0.0, scatter / m) / delta)


def _of_few_rows(centred: np.ndarray) -> Axes:
    """From inner products: x xᵀ / m = U E Uᵀ has the eigenvalues of S, whose axes are xᵀ U / √(m E)."""
    m = len(centred)
    inner = centred @ centred.T / m
    share = shrinkage(centred, inner)
    moments = float(np.trace(inner)), float((inner**2).sum())
    if share == 1.0:  # no axis has more than another
        return _shrunk(np.empty((centred.shape[1], 0)), np.empty(0), moments, share)
    variance, turn = np.linalg.eigh(inner)
    there = variance > _NOTHING * max(variance[-1], 1e-300)
    variance, turn = variance[there], turn[:, there]
    return _shrunk(centred.T @ (turn / np.sqrt(m * variance)), variance, moments, share)


def _shrunk(basis: np.ndarray, variance: np.ndarray, moments: tuple[float, float], share: float) -> Axes:
    """The axes of (1 − s)S + sμI from those of S; `moments` are tr S and ‖S‖²."""
    (d, r), (trace, squares) = basis.shape, moments
    elsewhere = max(trace - float(variance.sum()), 0.0) / max(d - r, 1)
    even = share * trace / d
    return Axes(
        basis,
        (1 - share) * variance + even,
        (1 - share) * elsewhere + even,
        (1 - share) ** 2 * squares + (2 * (1 - share) * trace + even * d) * even,
        share,
    )


def _leading(rows: np.ndarray, centre: np.ndarray) -> Axes:
    """The leading axes by subspace iteration on S, started at random; the centre lies in their span."""
    (m, d), c = rows.shape, centre.astype(np.float32)
    power = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) - 2.0 * (rows @ c) + float(centre @ centre)
    trace, squares = float(power.mean()), _squared_norm(rows, c)
    share = _share(power, squares, d)
    basis = np.random.default_rng(0).standard_normal((d, LEADING))
    for _ in range(_ROUNDS):
        q = np.linalg.qr(basis)[0].astype(np.float32)
        along = rows @ q
        along -= c @ q
        basis = (rows.T @ along - np.outer(c, along.sum(axis=0))).astype(np.float64)
    basis = np.linalg.qr(np.column_stack([basis, centre]))[0]
    q = basis.astype(np.float32)
    along = (rows @ q - c @ q).astype(np.float64)
    variance, turn = np.linalg.eigh(along.T @ along / m)
    found = _shrunk(basis @ turn, np.maximum(variance, 0.0), (trace, squares), share)
    even = share * trace / d
    return replace(found, uneven=Uneven(rows, 1 - share, even, found.rest))


def _squared_norm(rows: np.ndarray, centre: np.ndarray) -> float:
    """‖S‖² from blocks of the m × m inner products, or of the d × d covariance where that is smaller."""
    m, d = rows.shape
    few = m <= d
    x, shift = (rows, rows @ centre - 0.5 * (centre @ centre)) if few else (rows.T, centre)
    total = 0.0
    for i in range(0, len(x), _BLOCK):
        for j in range(i, len(x), _BLOCK):
            a, b = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
            block = x[a] @ x[b].T
            block -= shift[a, None] + shift[b] if few else m * np.outer(shift[a], shift[b])
            total += (1 if i == j else 2) * float(np.einsum("ij,ij->", block, block, dtype=np.float64))
    return total / m**2
