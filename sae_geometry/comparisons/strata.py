"""Strata of one direction by firing frequency and by crowding."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.nulls import crowd
from sae_geometry.pairwise.matching_result import Matching

if TYPE_CHECKING:
    import pandas as pd

RARE = 1e-4  # share of tokens up to which a latent is rare
_DECADES = (0.0, 1e-5, RARE, 1e-3, 1e-2, 1.0)
_CROWDING = 4  # number of equally sized strata
_FEWEST = 20  # latents per crowding stratum


def strata(source: Dictionary, m: Matching) -> pd.DataFrame:
    """Return one row per stratum of the source's latents, by decades of firing frequency where known, and by crowding.

    Crowding is the mean similarity of ranks 2 to 9 among all candidates of a latent: see `nulls.crowd`.

    Columns: by ("frequency" or "crowding"), low, high (a frequency equal to `low` is not in it), n, mean (of the
    matched), above (share > 0.7), significant (share).
    """
    import pandas as pd

    rows = []
    if source.frequency is not None:
        frequency = source.frequency.cpu().numpy()
        for low, high in itertools.pairwise(_DECADES):
            rows.append(_row(m, "frequency", low, high, (frequency > low) & (frequency <= high)))
    dense = crowd(m.controls)
    known = np.sort(dense[np.isfinite(dense)])
    n = min(_CROWDING, len(known) // _FEWEST)
    for part in np.array_split(known, n) if n > 1 else []:
        low, high = float(part[0]), float(part[-1])
        rows.append(_row(m, "crowding", low, high, (dense >= low) & (dense <= high)))
    return pd.DataFrame([row for row in rows if row["n"]], columns=list(_COLUMNS))


_COLUMNS = ("by", "low", "high", "n", "mean", "above", "significant")


def _row(m: Matching, by: str, low: float, high: float, members: np.ndarray) -> dict[str, object]:
    similarity = m.similarity[members]
    matched = similarity[~np.isnan(similarity)]
    return {
        "by": by,
        "low": low,
        "high": high,
        "n": int(members.sum()),
        "mean": float(matched.mean()) if len(matched) else float("nan"),
        "above": float((similarity > THRESHOLD).mean()) if members.any() else float("nan"),
        "significant": float(m.significant[members].mean()) if members.any() else float("nan"),
    }


def rare_shares(source: Dictionary, m: Matching) -> tuple[float, float] | None:
    """Return the significant shares of frequent and of rare latents; None if unknown or all are of one kind."""
    if source.frequency is None:
        return None
    often = source.frequency.cpu().numpy() > RARE
    if often.all() or not often.any():
        return None
    return float(m.significant[often].mean()), float(m.significant[~often].mean())


def rare_words(source: Dictionary, m: Matching) -> str | None:
    """Report the significant shares of frequent and of rare latents; None if frequencies are unknown."""
    shares = rare_shares(source, m)
    if shares is None or source.frequency is None:
        return None
    often = source.frequency.cpu().numpy() > RARE
    missing = ~m.significant
    rare = f"; {(missing & ~often).sum() / missing.sum():.0%} of those that are not are rare" if missing.any() else ""
    return (
        f"{source.name}: of {often.sum():,} latents that fire on more than {RARE:g} of tokens {shares[0]:.0%} are "
        f"significant, of {(~often).sum():,} rarer ones {shares[1]:.0%}{rare}"
    )
