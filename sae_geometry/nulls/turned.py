"""Turned dictionaries: a random orthogonal map removes relations to other dictionaries, but preserves inner geometry.

Y′ = Y R with R orthogonal, so all inner products within Y are preserved. R = V diag(±1) Vᵀ + u uᵀ, where u is the
direction of Y's mean and V holds the principal axes of Y orthogonal to u. This preserves the mean and the second moment
orthogonal to it. (The covariance between the coordinate along the mean and the others changes sign; a map that
preserved it too would be the identity, except for special dictionaries.) The signs are random. R is its own inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.kernels.loops.threads import in_parallel, one_torch_thread
from sae_geometry.kernels.sweep import cpu_threads

_ROWS = 2048  # rows per product
_COLUMNS = 128  # columns of the second moment per unit of work
_NOISE = 4  # minimum squared length of a mean to preserve, relative to that expected for unrelated rows
_NO_AXIS = 1e-10  # minimum variance of an axis, relative to the largest


@dataclass(frozen=True, eq=False)
class Axes:
    """Axes about which a dictionary is turned.

    Attributes:
        mean: float64 [d], the direction of the rows' mean; zeros if it is within sampling noise.
        principal: float64 [d, r], orthonormal columns orthogonal to the mean; together they span the rows.
    """

    mean: Tensor
    principal: Tensor


def principal_axes(y: Float[Tensor, "m d"]) -> Axes:
    """Return the axes about which rows can be turned while preserving their mean and second moment.

    Each strip is computed by one thread, so the bits do not depend on the number of threads.
    """
    y = y.detach().cpu()
    m, d = y.shape
    threads = cpu_threads()  # The thread count must be read before torch is limited to one thread.
    with one_torch_thread():
        if m < d:
            return _of_few_rows(y.double())
        moment = _second_moment(y, threads)
        mean = _direction(y.mean(dim=0).double(), float(moment.trace() / m), m)
        along = moment @ mean
        both = torch.outer(mean, along - mean * (mean @ along) / 2)
        rest = moment - both - both.T  # second moment of the projections orthogonal to the mean
        if not mean.any():
            return Axes(mean, torch.linalg.eigh(rest)[1])
        # Make the mean the last axis, distinct from axes without variance, so that the slice below excludes it.
        rest += torch.outer(mean, mean) * (1 + rest.trace())
        return Axes(mean, torch.linalg.eigh(rest)[1][:, :-1])


def _second_moment(y: Tensor, threads: int) -> Tensor:
    """Return the sum of yᵢ yᵢᵀ over the rows, float64 [d, d], computed in strips of columns below the diagonal."""
    d = y.shape[1]
    below = torch.zeros((d, d), dtype=torch.float64)

    def piece(start: int) -> None:
        strip = below[start:, start : start + _COLUMNS]
        for part in y.split(_ROWS):
            strip += part[:, start:].T @ part[:, start : start + _COLUMNS]

    in_parallel(lambda _: piece, range(0, d, _COLUMNS), threads)
    return below.tril() + below.tril(-1).T


def _of_few_rows(y: Tensor) -> Axes:
    """Return the axes of fewer rows than dimensions, computed from the rows' inner products."""
    mean = _direction(y.mean(dim=0), float((y**2).sum() / len(y)), len(y))
    rest = y - torch.outer(y @ mean, mean)
    power, turn = torch.linalg.eigh(rest @ rest.T)
    there = power > _NO_AXIS * power[-1]
    return Axes(mean, torch.linalg.qr(rest.T @ (turn[:, there] / power[there].sqrt()))[0])


def _direction(mean: Tensor, power: float, m: int) -> Tensor:
    """Return the normalized mean of m rows with mean square `power`; zeros if it is within sampling noise.

    Preserving a direction of noise would mix strong and weak axes, so turns would move variance between them.
    """
    length = float(mean.norm())
    return mean / length if length**2 > _NOISE * power / m else torch.zeros_like(mean)


def turned(y: Float[Tensor, "m d"], axes: Axes, seed: int) -> Float[Tensor, "m d"]:
    """Return rows turned about their axes, with signs drawn from `seed`, as float32 [m, d] on the same device.

    Norms, inner products, mean and the second moment orthogonal to it are preserved to float32 precision.

    Example:
        >>> import torch
        >>> y = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1)
        >>> z = turned(y, principal_axes(y), seed=0)
        >>> bool((z @ z.T - y @ y.T).abs().max() < 1e-5), bool((z - y).abs().max() > 0.1)
        (True, True)
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (axes.principal.shape[1],), generator=generator).double() * 2 - 1
    rows, out = y.detach().cpu(), torch.empty(y.shape, dtype=torch.float32)
    threads = cpu_threads()
    with one_torch_thread():
        turning = (axes.principal * signs) @ axes.principal.T + torch.outer(axes.mean, axes.mean)
        turning = turning.float()

        def piece(start: int) -> None:
            torch.mm(rows[start : start + _ROWS], turning, out=out[start : start + _ROWS])

        in_parallel(lambda _: piece, range(0, len(rows), _ROWS), threads)
    return out.to(y.device)


def turned_copies(x: Float[Tensor, "n d"], axes: Axes, turns: int, *, seed: int = 0) -> Float[Tensor, "copies d"]:
    """Return rows turned `turns` times about the axes of a dictionary, as float32 [turns · n, d] on the same device.

    A turn R is its own inverse, so ⟨x, R y⟩ = ⟨R x, y⟩: turning a few vectors costs less than turning the dictionary.
    Components outside the span of the axes are dropped, since they are orthogonal to every row of the dictionary.

    Args:
        turns: number of turns T; row t · n + i of the result is vector i under turn t.
    """
    signs = torch.randint(0, 2, (turns, axes.principal.shape[1]), generator=torch.Generator().manual_seed(seed))
    rows = x.detach().cpu().double()
    along = torch.outer(rows @ axes.mean, axes.mean)
    coordinates = (rows @ axes.principal)[None] * (2 * signs.double() - 1)[:, None]
    turned_rows = coordinates.flatten(0, 1) @ axes.principal.T + along.repeat(turns, 1)
    return turned_rows.float().to(x.device)
