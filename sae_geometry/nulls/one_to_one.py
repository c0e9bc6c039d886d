"""Null expectations of one-to-one matchings: against a turned dictionary, and between two halves of one dictionary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.matching import Assignment, OneToOne, match
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.matching.greedy import greedy_partners
from sae_geometry.matching.pairs import partner_cosines
from sae_geometry.nulls.controls import OwnLists, TurnedSweeps
from sae_geometry.nulls.turned import principal_axes, turned


@dataclass(frozen=True)
class Expected:
    """Null expectation of a mean similarity, unknown by default.

    Attributes:
        mean_similarity: mean over pairs, averaged over turns.
        spread: standard deviation over turns; nan for fewer than two turns.
        n_pairs: number of pairs, averaged over turns.
        share_above: share of the smaller side in pairs above the threshold, averaged over turns; nan if not counted.
    """

    mean_similarity: float = math.nan
    spread: float = math.nan
    n_pairs: float = math.nan
    turns: int = 0
    share_above: float = math.nan

    @staticmethod
    def over_turns(means: Sequence[float], n_pairs: float) -> Expected:
        """Average the means of several turns, ignoring turns without pairs (nan)."""
        known = [x for x in means if not math.isnan(x)]
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
        return Expected(float(np.mean(known)) if known else math.nan, spread, n_pairs, len(means))


def turned_pairs(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    method: OneToOne,
    turns: int,
    *,
    threshold: float = THRESHOLD,
    swept: TurnedSweeps | None = None,
    **how: Any,
) -> Expected:
    """Match A with the turned B, once for each of `turns` consecutive seeds.

    Args:
        turns: number of turns, at least one.
        threshold: similarity above which pairs are counted in `share_above`.
        swept: finished sweeps of A against the turned B for the first turns, if any; further turns continue their
            seeds.

    Raises:
        KeyboardInterrupt: Ctrl-C during a matching.
    """
    known = TurnedSweeps(principal_axes(b), (), 0) if swept is None else swept
    lists = [*known.sweeps, *repeat(None, turns)]
    others = (turned(b, known.axes, known.seed + t) for t in range(turns))
    made = [
        match(a, other, method, nearest=near, **how).completed() for other, near in zip(others, lists, strict=False)
    ]
    above = [float((x.score > threshold).sum()) / min(len(a), len(b)) for x in made]
    return replace(_expected(made), share_above=float(np.mean(above)))


def own_pairs(
    a: Float[Tensor, "n d"], method: OneToOne, *, scale: float = 1.0, lists: OwnLists | None = None, **how: Any
) -> Expected:
    """Match a random half of A's rows with the other half; the result is nan for fewer than two rows.

    Args:
        scale: factor that converts inner products within A to similarities.
        lists: the nearest other latents of every row, which save greedy matching its first sweep.
    """
    if len(a) < 2:
        return Expected()
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
    half, other = (part.sort().values for part in order.tensor_split([len(a) // 2]))
    x, y = a[half.to(a.device)] * scale, a[other.to(a.device)]
    if lists is None or method != "greedy":
        return _expected([match(x, y, method, **how).completed()])
    first, second = half.numpy(), other.numpy()  # NumPy would treat a tensor with one element as a plain index.
    known = _in_half(lists.index[first], second, len(a)), _in_half(lists.index[second], first, len(a))
    partner, _ = greedy_partners(x, y, lists=known, **how)
    similarity = partner_cosines(x, y, partner)[partner >= 0]
    mean = float(np.mean(np.abs(similarity) if how.get("absolute") else similarity))
    return Expected.over_turns([mean], float(len(similarity)))


def _in_half(index: np.ndarray, half: np.ndarray, n: int) -> Tensor:
    """Restrict lists of latents, int64 [rows, k], to positions within one half, padded with −1 at the end."""
    place = np.full(n + 1, -1)  # The extra entry is for −1, which pads short lists.
    place[half] = np.arange(len(half))
    local = place[index]
    return torch.from_numpy(np.take_along_axis(local, np.argsort(local < 0, axis=1, kind="stable"), axis=1))


def _expected(made: Sequence[Assignment]) -> Expected:
    means = [x.total / x.n_matched if x.n_matched else math.nan for x in made]
    return Expected.over_turns(means, float(np.mean([x.n_matched for x in made])))
