"""Partners of each latent in every other run: nearest, mutual, and one-to-one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.frozen import freeze
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.kernels.types import Sweep
from sae_geometry.matching import match
from sae_geometry.matching.defaults import DISCOVERY_RATE, default_matching
from sae_geometry.nulls import LISTED, How, OwnCache, pair_controls
from sae_geometry.pairwise.matching_result import Matching, nearest_matching, one_to_one_matching, with_mutual

_LISTED = 16  # partners listed per latent for the greedy matching


@dataclass(frozen=True, eq=False, repr=False)
class Partners:
    """Partners of the latents of one run in another run, by signed decoder cosine.

    Attributes:
        max_cosine: float64 [n], cosine to the nearest latent.
        partner_id: int64 [n], original id of the nearest latent.
        mutual: bool [n], whether the two are each other's nearest.
        one_to_one_partner_id: int64 [n], original id of the one-to-one partner, −1 where unmatched.
        one_to_one_cosine: float64 [n], nan where unmatched.
        q_value: float64 [n], smallest false discovery rate at which the nearest latent is significant: closer than the
            nearest other latent of the own run and the nearest latent of the turned other run.
    """

    max_cosine: np.ndarray
    partner_id: np.ndarray
    mutual: np.ndarray
    one_to_one_partner_id: np.ndarray
    one_to_one_cosine: np.ndarray
    q_value: np.ndarray

    def __post_init__(self) -> None:
        freeze(self)


COLUMNS = ("max_cosine", "partner_id", "mutual", "one_to_one_partner_id", "one_to_one_cosine", "q_value")


@dataclass(frozen=True, eq=False, repr=False)
class Across:
    """Partners and one-to-one matchings of all pairs of runs, in both directions.

    Attributes:
        partners: for (r, s), the partners in run s of the latents of run r.
        matchings: for (r, s) with r < s, the one-to-one matching used: "optimal" up to 4,096 latents per side,
            "greedy" beyond.
        chance: for (r, s), the null expectation of the mean of `max_cosine`, computed against the turned run s.
    """

    names: tuple[str, ...]
    partners: Mapping[tuple[int, int], Partners]
    matchings: Mapping[tuple[int, int], str]
    chance: Mapping[tuple[int, int], float]

    def best(self, run: int) -> tuple[np.ndarray, Partners]:
        """Return the closest run of each latent of `run`, int64 [n] (the first in a tie), and the partners there."""
        others = [s for s in range(len(self.names)) if s != run]
        at = np.argmax([self.partners[run, s].max_cosine for s in others], axis=0)
        rows = np.arange(len(at))
        there = {c: np.stack([getattr(self.partners[run, s], c) for s in others])[at, rows] for c in COLUMNS}
        return np.asarray(others)[at], Partners(**there)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent, grouped by run.

        Columns: partner_run, the run with the largest cosine; max_cosine, partner_id, mutual, one_to_one_partner_id,
        one_to_one_cosine and q_value in that run (null if there is no partner). Then the same six for each run NAME,
        as `max_cosine:NAME` and so on, null on the rows of NAME itself.
        """
        names = np.array(self.names, dtype=object)
        parts = []
        for run in range(len(names)):
            closest, best = self.best(run)
            columns: dict[str, Any] = {"partner_run": names[closest], **_columns(best, len(closest))}
            for other, name in enumerate(names):
                there = _columns(self.partners.get((run, other)), len(closest))
                columns |= {f"{column}:{name}": values for column, values in there.items()}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def summary(self) -> list[dict[str, Any]]:
        """Return one JSON-ready dict per pair of runs: MMCS in both directions and mean cosine of one-to-one pairs."""
        return [
            {
                "a": self.names[r],
                "b": self.names[s],
                "mmcs_a_to_b": float(self.partners[r, s].max_cosine.mean()),
                "mmcs_b_to_a": float(self.partners[s, r].max_cosine.mean()),
                "mmcs_chance_a_to_b": self.chance[r, s],
                "mmcs_chance_b_to_a": self.chance[s, r],
                "significant_a_to_b": float((self.partners[r, s].q_value <= DISCOVERY_RATE).mean()),
                "significant_b_to_a": float((self.partners[s, r].q_value <= DISCOVERY_RATE).mean()),
                "n_mutual": int(self.partners[r, s].mutual.sum()),
                "one_to_one_matching": method,
                "one_to_one_pairs": int((self.partners[r, s].one_to_one_partner_id >= 0).sum()),
                "one_to_one_mean_cosine": float(np.nanmean(self.partners[r, s].one_to_one_cosine)),
            }
            for (r, s), method in self.matchings.items()
        ]


def partners_across(
    dictionaries: Sequence[Dictionary],
    swept: Mapping[tuple[int, int], Sweep] | None = None,
    progress: Progress | None = None,
) -> Across:
    """Return the partners of every latent in every other run.

    Args:
        dictionaries: two or more dictionaries of the same width.
        swept: completed two-sided sweeps of run r against run s, r < s, to reuse.
    """
    partners: dict[tuple[int, int], Partners] = {}
    matchings: dict[tuple[int, int], str] = {}
    chance: dict[tuple[int, int], float] = {}
    own: list[OwnCache] = [{} for _ in dictionaries]
    pairs = list(combinations(range(len(dictionaries)), 2))
    for done, (r, s) in enumerate(pairs):
        if progress is not None:
            progress("one-to-one partners", done / len(pairs))
        a, b = dictionaries[r], dictionaries[s].to(dictionaries[r].device)
        found = (swept or {}).get((r, s))
        if found is None or found.rows.score.shape[1] < LISTED:
            found = listing_sweep(a.directions, b.directions, _LISTED)
        assert found.cols is not None
        controls = pair_controls(a.directions, b.directions, found, How(turns=1), None, (own[r], own[s]))
        forth = nearest_matching(a, b, found.rows, controls[0])
        back = nearest_matching(b, a, found.cols, controls[1])
        method = default_matching(a.n_latents, b.n_latents)
        made = match(a.directions, b.directions, method, nearest=found).completed()
        there = one_to_one_matching(forth, back, method, made.partner, made.cosine)
        here = one_to_one_matching(back, forth, method, *made.reverse(b.n_latents))
        partners[r, s] = _partners(with_mutual(forth, back), there)
        partners[s, r] = _partners(with_mutual(back, forth), here)
        chance[r, s], chance[s, r] = forth.chance, back.chance
        matchings[r, s] = method
    if progress is not None:
        progress("one-to-one partners", 1.0)
    return Across(tuple(d.name for d in dictionaries), partners, matchings, chance)


def _partners(nearest: Matching, paired: Matching) -> Partners:
    return Partners(nearest.cosine, nearest.partner, nearest.mutual, paired.partner, paired.cosine, nearest.q_value)


def _columns(partners: Partners | None, n: int) -> dict[str, Any]:
    """Return the six columns for partners in another run, all null if `partners` is None."""
    none = np.full(n, partners is None)
    out: dict[str, Any] = {}
    for column in COLUMNS:
        values = None if partners is None else getattr(partners, column)
        if column.endswith("_id"):
            ids = np.full(n, -1) if values is None else np.array(values)
            out[column] = pd.arrays.IntegerArray(ids.astype(np.int64), ids < 0)
        elif column == "mutual":
            flags = np.zeros(n, dtype=bool) if values is None else np.array(values)
            out[column] = pd.arrays.BooleanArray(flags, none)
        else:
            out[column] = np.full(n, np.nan) if values is None else values
    return out
