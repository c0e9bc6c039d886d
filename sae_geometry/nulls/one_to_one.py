"""What a one-to-one matching gives by chance: random dictionaries with the same moments, matched the same way."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from sae_geometry.matching import match
from sae_geometry.matching.defaults import SMALL, OneToOne
from sae_geometry.nulls import MatchedNull, PairedChance, isotropic_null

_ENOUGH = 1000  # latents, over all draws, after which the mean has settled to about 0.001


def default_draws(n: int, m: int) -> int:
    """Enough draws for about 1,000 latents on the smaller side; none beyond 4,096 a side, where they cost as much as
    the matching itself.
    """
    return 0 if max(n, m) > SMALL else min(10, math.ceil(_ENOUGH / min(n, m)))


def paired_chance(
    a: tuple[MatchedNull, int],
    b: tuple[MatchedNull, int],
    method: OneToOne,
    *,
    draws: int,
    absolute: bool = False,
    min_similarity: float | None = None,
    seed: int = 0,
) -> PairedChance:
    """Match random dictionaries of n and m directions, each drawn from its own null, by `method`.

    Args:
        a, b: (null, how many directions) of either side.
        method: the one-to-one matching.
        draws: how many times, at least one.
        absolute: |cos| instead of cos.
        min_similarity: as in `match`, for "optimal".
        seed: of the first draw.

    Raises:
        ValueError: no draws.
        KeyboardInterrupt: Ctrl-C while a matching was made.
    """
    if draws < 1:
        raise ValueError(f"a null needs at least one draw; got {draws}")
    means, pairs = [], []
    for draw in range(draws):
        x = torch.from_numpy(a[0].sample(a[1], seed=seed + 2 * draw))
        y = torch.from_numpy(b[0].sample(b[1], seed=seed + 2 * draw + 1))
        found = match(x, y, method, absolute=absolute, min_similarity=min_similarity)
        if found.interrupted:
            raise KeyboardInterrupt  # a matching that is not what it is called would pass for chance
        cosine = found.cosine[found.partner >= 0]
        pairs.append(len(cosine))
        if len(cosine):
            means.append(float((np.abs(cosine) if absolute else cosine).mean()))
    return PairedChance(
        mean_similarity=float(np.mean(means)) if means else float("nan"),
        n_pairs=float(np.mean(pairs)),
        draws=draws,
        standard_error=float(np.std(means, ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan"),
    )


@lru_cache(maxsize=64)
def paired_isotropic(
    sizes: tuple[int, int, int],
    method: OneToOne,
    *,
    draws: int,
    absolute: bool = False,
    min_similarity: float | None = None,
) -> PairedChance:
    """The same for isotropic directions: nothing but n, m and d matters, so it is made once.

    Args:
        sizes: (n, m, d).
        method, draws, absolute, min_similarity: as in `paired_chance`.

    Raises:
        ValueError: no draws.
    """
    n, m, d = sizes
    null = isotropic_null(d)
    return paired_chance((null, n), (null, m), method, draws=draws, absolute=absolute, min_similarity=min_similarity)
