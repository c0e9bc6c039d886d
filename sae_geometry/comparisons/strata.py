"""Strata of latents by firing frequency and by crowding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import aligned, counted, known_mean, or_dash, percent
from sae_geometry.nulls import crowd
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.pairwise.pair_record import N_BANDS

SPARSER = "all but the densest 1%"
RARE = 1e-4  # Latents that fire on at most this share of tokens are rare.
_DECADES = (0.0, 1e-5, RARE, 1e-3, 1e-2, 1e-1, 1.0)
_CROWDING = 4  # number of crowding strata, all of the same size
_FEWEST = 20  # minimum number of latents per crowding stratum


def strata(source: Dictionary, m: Matching, paired: Matching, threshold: float) -> pd.DataFrame:
    """Return one row per stratum of the source's latents: decades of firing frequency, if known, and crowding.

    Crowding is a latent's mean similarity to its candidates of ranks 2 to 9: see `nulls.crowd`.

    Returns:
        Columns: by ("frequency", "all but the densest 1%" or "crowding"), low, high (frequencies equal to `low` are
        excluded), n, mean (over matched latents), above (share above the threshold), significant (share), shared (share
        with a one-to-one partner above the threshold).
    """
    groups = []
    if source.frequency is not None:
        groups += _bands(source.frequency.cpu().numpy())
    dense, _ = crowd(m.controls)
    known = np.sort(dense[np.isfinite(dense)])
    n = min(_CROWDING, len(known) // _FEWEST)
    for part in np.array_split(known, n) if n > 1 else []:
        low, high = float(part[0]), float(part[-1])
        groups.append(("crowding", low, high, (dense >= low) & (dense <= high)))
    rows = []
    for by, low, high, members in groups:
        if members.any():
            found = m.similarity[members]
            shares = [x[members] for x in (m.similarity > threshold, m.significant, paired.similarity > threshold)]
            rows.append((by, low, high, len(found), known_mean(found), *(float(share.mean()) for share in shares)))
    return pd.DataFrame(rows, columns=["by", "low", "high", "n", "mean", "above", "significant", "shared"])


def _bands(frequency: np.ndarray) -> list[tuple[str, float, float, np.ndarray]]:
    """Return the name, bounds and members of each decade of frequency, and of all latents but the densest 1%."""
    found = [("frequency", a, b, (frequency > a) & (frequency <= b)) for a, b in itertools.pairwise(_DECADES)]
    n_dense = math.ceil(len(frequency) / 100)
    members = np.ones(len(frequency), dtype=bool)
    members[np.argsort(frequency, kind="stable")[len(frequency) - n_dense :]] = False
    highest = float(frequency[members].max(initial=0.0))
    return [*found, (SPARSER, 0.0, highest, members)]


def strata_lines(rows: pd.DataFrame, columns: Mapping[str, str]) -> list[str]:
    """Return one line of text per stratum of firing frequency; an empty list if frequencies are unknown.

    Args:
        rows: as returned by `strata` or `strata_of_runs`.
        columns: the columns to print, with their headings.
    """
    table = [("fires on", "n", *columns.values())]
    for row in rows[rows["by"].isin(["frequency", SPARSER])].to_dict("records"):
        name = f"{row['low']:g} … {row['high']:g}" if row["by"] == "frequency" else SPARSER
        cells = (or_dash(row[c], ".3f") if c in ("mean", "mmcs") else percent(row[c]) for c in columns)
        table.append((name, f"{row['n']:,}", *cells))
    return aligned(table) if len(table) > 1 else []


def band_sums(d: Dictionary, nearest: Matching) -> np.ndarray:
    """Return the sum of similarities and the number of significant latents per frequency band, float64 [bands, 2].

    All values are nan if frequencies are unknown. The bands are the decades, and all latents but the densest 1%.
    """
    if d.frequency is None:
        return np.full((N_BANDS, 2), np.nan)
    bands = [members for *_, members in _bands(d.frequency.cpu().numpy())]
    return np.array([[nearest.similarity[m].sum(), nearest.significant[m].sum()] for m in bands], dtype=np.float64)


def strata_of_runs(
    runs: Sequence[Dictionary], similarity: np.ndarray, threshold: float, sums: np.ndarray
) -> pd.DataFrame:
    """Return one row per stratum of the latents of all runs with known frequencies.

    Args:
        similarity: float64 [L, N], similarity to the one-to-one partner in each run; nan where there is no partner.
        threshold: similarity above which a latent is found in another run.
        sums: float64 [N, bands, 2], `band_sums` of each run, summed over the other runs.

    Returns:
        Columns: by, low, high, n, mean (over pairs of a latent and its partners), above (share of pairs of a latent and
        another run in which the latent is found), mmcs and significant (mean and share over the same pairs). The
        densest 1% are taken within each run.
    """
    ends = np.cumsum([d.n_latents for d in runs])
    parts = [(_bands(d.frequency.cpu().numpy()), similarity[e - d.n_latents : e], sums[r])
             for r, (d, e) in enumerate(zip(runs, ends, strict=True)) if d.frequency is not None]  # fmt: skip
    rows = []
    for at in range(N_BANDS if parts else 0):
        by, low, _, _ = parts[0][0][at]
        found = np.concatenate([mine[bands[at][3]] for bands, mine, _ in parts])
        if len(found):
            times = len(found) * max(len(runs) - 1, 1)
            total = sum((own[at] for *_, own in parts), np.zeros(2)) / times
            above = float((found > threshold).sum() / times)
            high = max(bands[at][2] for bands, *_ in parts)
            rows.append((by, low, high, len(found), known_mean(found), above, float(total[0]), float(total[1])))
    return pd.DataFrame(rows, columns=["by", "low", "high", "n", "mean", "above", "mmcs", "significant"])


def rare_shares(source: Dictionary, m: Matching) -> tuple[float, float] | None:
    """Return the shares of frequent and of rare latents that are significant; None unless both kinds exist."""
    if source.frequency is None:
        return None
    often = source.frequency.cpu().numpy() > RARE
    if often.all() or not often.any():
        return None
    return float(m.significant[often].mean()), float(m.significant[~often].mean())


def rare_words(source: Dictionary, m: Matching) -> str | None:
    """Describe the shares of frequent and of rare latents that are significant; None if `rare_shares` is None."""
    shares = rare_shares(source, m)
    if shares is None or source.frequency is None:
        return None
    often = source.frequency.cpu().numpy() > RARE
    missing = ~m.significant
    share = f"{(missing & ~often).sum() / missing.sum():.0%}" if missing.any() else ""
    rare = f"; {share} of the latents that are not significant are rare" if share else ""
    frequent, rarer = counted(int(often.sum()), "latent"), counted(int((~often).sum()), "rarer latent")
    return (
        f"{source.name}: of {frequent} firing on more than {RARE:g} of tokens, {shares[0]:.0%} are "
        f"significant; of {rarer}, {shares[1]:.0%}{rare}"
    )
