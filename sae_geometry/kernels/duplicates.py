"""Groups of bitwise equal rows, so that ties among thousands of duplicates need not be scored one by one."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 20


def first_equal(
    x: Float32[Tensor, "n d"], extra: Float64[Tensor, " n"] | None = None, up_to_sign: bool = False
) -> Int64[Tensor, " n"]:
    """Return the index of the first row equal to each row, which is its own index if no earlier row is equal.

    −0 equals +0. Equal rows must also agree in `extra`, if given; with `up_to_sign`, x and −x are equal. Rows are
    grouped by a 64-bit hash of their bits and then compared, so different rows are never reported as equal. If hashes
    collide, equal rows may be reported as different, which only costs time.
    """
    n, d = x.shape
    weights = torch.randint(-(2**62), 2**62, (d,), generator=torch.Generator().manual_seed(0)).to(x.device) * 2 + 1
    step = max(1, _CHUNK_ELEMENTS // d)
    hashes = torch.empty(n, dtype=torch.int64, device=x.device)
    for start in range(0, n, step):
        hashes[start : start + step] = _hash(_canonical(x[start : start + step], up_to_sign), weights)
    if extra is not None:
        hashes = hashes * 31 + (extra + 0.0).view(torch.int64)
    _, group = torch.unique(hashes, return_inverse=True)
    first = torch.full((int(group.max()) + 1,), n, dtype=torch.int64, device=x.device)
    first = first.scatter_reduce(0, group, torch.arange(n, device=x.device), "amin")[group]
    repeats = (first != torch.arange(n, device=x.device)).nonzero().flatten()
    for part in repeats.split(step):
        same = (_canonical(x[part], up_to_sign) == _canonical(x[first[part]], up_to_sign)).all(dim=1)
        if extra is not None:
            same &= extra[part] == extra[first[part]]
        first[part] = torch.where(same, first[part], part)
    return first


def rank_among_equals(first: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """Return the number of earlier rows equal to each row, given the result of `first_equal`."""
    order = first.argsort(stable=True)
    position = torch.arange(first.shape[0], device=first.device)
    starts = torch.full_like(first, first.shape[0]).scatter_reduce(0, first[order], position, "amin")
    rank = torch.empty_like(first)
    rank[order] = position - starts[first[order]]
    return rank


def _canonical(x: Tensor, up_to_sign: bool) -> Tensor:
    x = x + 0.0  # Adding 0 turns −0 into +0.
    if up_to_sign:
        first = (x != 0).to(torch.uint8).argmax(dim=1, keepdim=True)
        x = torch.where(x.gather(1, first) < 0, -x, x) + 0.0
    return x


def _hash(x: Tensor, weights: Tensor) -> Tensor:
    return (x.view(torch.int32).to(torch.int64) * weights).sum(dim=1)
