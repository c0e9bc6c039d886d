"""What a one-to-one matching gives where nothing is shared: against a dictionary turned, and between its own halves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.matching import Assignment, OneToOne, match
from sae_geometry.nulls.turned import principal_axes, turned


@dataclass(frozen=True)
class Expected:
    """A mean similarity measured where nothing is shared.

    Attributes:
        mean_similarity: over the pairs, averaged over turns.
        spread: its standard deviation over turns; nan for fewer than two.
        n_pairs: how many pairs, averaged over turns.
        turns: how often it was measured.
    """

    mean_similarity: float
    spread: float
    n_pairs: float
    turns: int

    @staticmethod
    def unknown() -> Expected:
        """Return what stands where nothing was measured."""
        return Expected(math.nan, math.nan, math.nan, 0)

    @staticmethod
    def over_turns(means: Sequence[float], n_pairs: float) -> Expected:
        """Average means of several turns; those without pairs (nan) do not count."""
        known = [x for x in means if not math.isnan(x)]
        spread = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
        return Expected(float(np.mean(known)) if known else math.nan, spread, n_pairs, len(means))


def turned_pairs(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], method: OneToOne, turns: int, *, seed: int = 0, **how: Any
) -> Expected:
    """Match A with B turned, `turns` times.

    Args:
        a, b: the operands of the matching.
        method: the one-to-one matching.
        turns: at least one.
        seed: of the first turn.
        how: more of `match`.

    Raises:
        KeyboardInterrupt: Ctrl-C during a matching.
    """
    axes = principal_axes(b)
    made = [_whole(match(a, turned(b, axes, seed + t), method, **how)) for t in range(turns)]
    return _expected(made)


def own_pairs(a: Float[Tensor, "n d"], method: OneToOne, *, scale: float = 1.0, seed: int = 0, **how: Any) -> Expected:
    """Match one half of A's rows, dealt at random, with the other; unknown for fewer than two rows.

    Args:
        a: the rows.
        method: the one-to-one matching.
        scale: what their inner products are multiplied by to be similarities.
        seed: of the deal.
        how: more of `match`.

    Raises:
        KeyboardInterrupt: Ctrl-C during a matching.
    """
    if len(a) < 2:
        return Expected.unknown()
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed)).to(a.device)
    half = len(a) // 2
    return _expected([_whole(match(a[order[:half]] * scale, a[order[half:]], method, **how))])


def _whole(made: Assignment) -> Assignment:
    if made.interrupted:
        raise KeyboardInterrupt  # A matching that is not what it is called would pass for chance.
    return made


def _expected(made: Sequence[Assignment]) -> Expected:
    means = [x.total / x.n_matched if x.n_matched else math.nan for x in made]
    return Expected.over_turns(means, float(np.mean([x.n_matched for x in made])))
