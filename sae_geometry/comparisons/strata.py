"""Strata of one direction by firing frequency and by crowding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import aligned, counted, percent
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.nulls import crowd
from sae_geometry.pairwise.matching_result import Matching

if TYPE_CHECKING:
    import pandas as pd

SPARSER = "all but the densest 1%"
RARE = 1e-4  # share of tokens up to which a latent is rare
_DECADES = (0.0, 1e-5, RARE, 1e-3, 1e-2, 1.0)
_CROWDING = 4  # number of equally sized strata
_FEWEST = 20  # latents per crowding stratum


def strata(source: Dictionary, m: Matching, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return one row per stratum of the source's latents, by decades of firing frequency where known, and by crowding.

    Crowding is the mean similarity of ranks 2 to 9 among all candidates of a latent: see `nulls.crowd`.

    Columns: by ("frequency", "all but the densest 1%" or "crowding"), low, high (a frequency equal to `low` is not in
    it), n, mean (of the matched), above (share above `threshold`), significant (share).
    """
    import pandas as pd

    rows = []
    if source.frequency is not None:
        for by, low, high, members in _bands(source.frequency.cpu().numpy()):
            rows.append(_row(m, by, low, high, members, threshold))
    dense = crowd(m.controls)
    known = np.sort(dense[np.isfinite(dense)])
    n = min(_CROWDING, len(known) // _FEWEST)
    for part in np.array_split(known, n) if n > 1 else []:
        low, high = float(part[0]), float(part[-1])
        rows.append(_row(m, "crowding", low, high, (dense >= low) & (dense <= high), threshold))
    return pd.DataFrame([row for row in rows if row["n"]], columns=list(_COLUMNS))


def _bands(frequency: np.ndarray) -> list[tuple[str, float, float, np.ndarray]]:
    """Return the decades of frequency, and all latents but the densest 1%: name, bounds and members of each."""
    found = [("frequency", a, b, (frequency > a) & (frequency <= b)) for a, b in itertools.pairwise(_DECADES)]
    n_dense = math.ceil(len(frequency) / 100)
    members = np.ones(len(frequency), dtype=bool)
    members[np.argsort(frequency, kind="stable")[len(frequency) - n_dense :]] = False
    highest = float(frequency[members].max(initial=0.0))
    return [*found, (SPARSER, 0.0, highest, members)]


def strata_lines(rows: pd.DataFrame, threshold: float) -> list[str]:
    """Return the strata by frequency as lines of text, one each; none where frequencies are unknown."""
    table = [("fires on", "n", "mean", f"> {threshold:g}", "significant")]
    for row in rows[rows["by"].isin(["frequency", SPARSER])].to_dict("records"):
        name = f"{row['low']:g} … {row['high']:g}" if row["by"] == "frequency" else SPARSER
        significant = percent(row["significant"]) if "significant" in row else ""
        table.append((name, f"{row['n']:,}", f"{row['mean']:.3f}", percent(row["above"]), significant))
    return aligned(table) if len(table) > 1 else []


def strata_of_runs(runs: Sequence[Dictionary], similarity: np.ndarray, threshold: float) -> pd.DataFrame:
    """Return one row per stratum of the latents of all runs with known frequencies.

    Args:
        similarity: float64 [L, N], similarity to the one-to-one partner in each run; nan where there is none.
        threshold: similarity above which a latent is found in another run.

    Returns:
        Columns: by, low, high, n, mean (over pairs of a latent and its partners), above (share of latents times other
        runs in which the latent is found).
    """
    import pandas as pd

    ends = np.cumsum([d.n_latents for d in runs])
    parts = [(d.frequency.cpu().numpy(), similarity[e - d.n_latents : e]) for d, e in zip(runs, ends, strict=True)
             if d.frequency is not None]  # fmt: skip
    rows = []
    if parts:
        frequency, found = np.concatenate([f for f, _ in parts]), np.concatenate([s for _, s in parts])
        for by, low, high, members in _bands(frequency):
            mine, n = found[members], int(members.sum())
            if n:
                known = mine[~np.isnan(mine)]
                mean = float(known.mean()) if len(known) else float("nan")
                above = float((mine > threshold).sum() / (n * max(len(runs) - 1, 1)))
                rows.append({"by": by, "low": low, "high": high, "n": n, "mean": mean, "above": above})
    return pd.DataFrame(rows, columns=["by", "low", "high", "n", "mean", "above"])


_COLUMNS = ("by", "low", "high", "n", "mean", "above", "significant")


def _row(m: Matching, by: str, low: float, high: float, members: np.ndarray, threshold: float) -> dict[str, object]:
    similarity = m.similarity[members]
    matched = similarity[~np.isnan(similarity)]
    return {
        "by": by,
        "low": low,
        "high": high,
        "n": int(members.sum()),
        "mean": float(matched.mean()) if len(matched) else float("nan"),
        "above": float((similarity > threshold).mean()) if members.any() else float("nan"),
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
    frequent = counted(int(often.sum()), "latent")
    return (
        f"{source.name}: of {frequent} firing on more than {RARE:g} of tokens {shares[0]:.0%} are "
        f"significant, of {(~often).sum():,} rarer ones {shares[1]:.0%}{rare}"
    )
