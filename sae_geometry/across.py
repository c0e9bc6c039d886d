"""Each latent's partners in every other run: the nearest, whether it answers, and the one-to-one partner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_geometry.describe import read_only
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.listing import listing_sweep
from sae_geometry.kernels.sweep import Sweep
from sae_geometry.matching import Assignment, match
from sae_geometry.nulls import (
    DISCOVERY_RATE,
    LISTED,
    SMALL,
    How,
    excess,
    own_similarities,
    q_values,
    turned_controls,
    with_own,
)

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, float], None]
_LISTED = 16  # partners kept of each latent: what a greedy matching starts from
MOST_RUNS = 24  # of which every two are compared beside a picture: with more, that is a comparison of its own


@dataclass(frozen=True, eq=False, repr=False)
class Partners:
    """The partners that the latents of one run have in another, by the signed decoder cosine.

    Attributes:
        max_cosine: float64 [n], to the nearest.
        partner_id: int64 [n], original id of the nearest.
        mutual: bool [n], whether the two are each other's nearest.
        one_to_one_partner_id: int64 [n], −1 where the one-to-one matching leaves a latent out.
        one_to_one_cosine: float64 [n], nan likewise.
        q_value: float64 [n], the smallest false discovery rate at which the nearest is significant: closer than the
            latent's own dictionary and the other run turned explain.
    """

    max_cosine: np.ndarray
    partner_id: np.ndarray
    mutual: np.ndarray
    one_to_one_partner_id: np.ndarray
    one_to_one_cosine: np.ndarray
    q_value: np.ndarray

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, read_only(value))


COLUMNS = ("max_cosine", "partner_id", "mutual", "one_to_one_partner_id", "one_to_one_cosine", "q_value")


@dataclass(frozen=True, eq=False, repr=False)
class Across:
    """Every two runs compared, both ways.

    Attributes:
        names: the runs.
        partners: for (r, s), the partners of run r's latents in run s.
        matchings: for (r, s) with r < s, how one-to-one pairs were made: "optimal" up to 4,096 latents a side,
            "greedy" beyond.
    """

    names: tuple[str, ...]
    partners: Mapping[tuple[int, int], Partners]
    matchings: Mapping[tuple[int, int], str]

    def closest_run(self, run: int) -> np.ndarray:
        """int64 [n]: the other run in which each latent of `run` has its largest cosine; the first of equals."""
        others = [s for s in self._runs if s != run]
        return np.asarray(others)[np.argmax([self.partners[run, s].max_cosine for s in others], axis=0)]

    def best(self, run: int) -> Partners:
        """The partners of each latent of `run` in the run that is closest to it."""
        others = [s for s in self._runs if s != run]
        at = np.searchsorted(others, self.closest_run(run))
        rows = np.arange(len(at))
        return Partners(
            **{
                column: np.stack([getattr(self.partners[run, s], column) for s in others])[at, rows]
                for column in COLUMNS
            }
        )

    @property
    def _runs(self) -> range:
        return range(len(self.names))

    def to_pandas(self) -> pd.DataFrame:
        """One row a latent, run after run.

        Columns: partner_run, the run with the largest cosine; max_cosine, partner_id, mutual, one_to_one_partner_id,
        one_to_one_cosine and q_value in that run (null where there is no partner). Then the same six for each run NAME,
        as `max_cosine:NAME` and so on, null on the rows of NAME itself.
        """
        import pandas as pd

        names = np.array(self.names, dtype=object)
        parts = []
        for run in self._runs:
            best = self.best(run)
            n = len(best.max_cosine)
            columns: dict[str, Any] = {"partner_run": names[self.closest_run(run)], **_columns(best, n)}
            for other in self._runs:
                there = _columns(self.partners.get((run, other)), n)
                columns |= {f"{column}:{self.names[other]}": values for column, values in there.items()}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def summary(self) -> list[dict[str, Any]]:
        """One entry for every two runs: MMCS both ways, and the mean over the one-to-one pairs. JSON-ready."""
        return [
            {
                "a": self.names[r],
                "b": self.names[s],
                "mmcs_a_to_b": float(self.partners[r, s].max_cosine.mean()),
                "mmcs_b_to_a": float(self.partners[s, r].max_cosine.mean()),
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
    """The partners of every latent in every other run.

    Args:
        dictionaries: two or more, of one width.
        swept: finished two-sided sweeps of run r against run s, r < s, where there are any.
        progress: called with what is being done and the share of it done, in [0, 1].

    Raises:
        KeyboardInterrupt: Ctrl-C while an optimal matching was made.
    """
    partners: dict[tuple[int, int], Partners] = {}
    matchings: dict[tuple[int, int], str] = {}
    own = [own_similarities(d.directions) for d in dictionaries]
    pairs = list(combinations(range(len(dictionaries)), 2))
    for done, (r, s) in enumerate(pairs):
        if progress is not None:
            progress("one-to-one partners", done / len(pairs))
        a, b = dictionaries[r], dictionaries[s].to(dictionaries[r].device)
        found = (swept or {}).get((r, s))
        if found is None or found.rows.score.shape[1] < LISTED:
            found = listing_sweep(a.directions, b.directions, _LISTED)
        method: Any = "optimal" if max(a.n_latents, b.n_latents) <= SMALL else "greedy"
        made = match(a.directions, b.directions, method, nearest=found)
        if made.certificate is not None and made.certificate.stopped == "interrupted":
            raise KeyboardInterrupt
        forth, back = turned_controls(a.directions, b.directions, found, How(turns=1))
        q = [
            q_values(excess(c.target[:, 0], c), c.ratio)
            for c in (with_own(forth, own[r], b.n_latents), with_own(back, own[s], a.n_latents))
        ]
        partners[r, s], partners[s, r] = _both_ways(found, made, a, b, q)
        matchings[r, s] = method
    if progress is not None:
        progress("one-to-one partners", 1.0)
    return Across(tuple(d.name for d in dictionaries), partners, matchings)


def _both_ways(
    found: Sweep, made: Assignment, a: Dictionary, b: Dictionary, q: Sequence[np.ndarray]
) -> tuple[Partners, Partners]:
    assert found.cols is not None
    ids = [d.latent_ids.cpu().numpy() for d in (a, b)]
    nearest = [best.index[:, 0].cpu().numpy() for best in (found.rows, found.cols)]
    cosine = [best.cosine[:, 0].cpu().numpy() for best in (found.rows, found.cols)]
    back = np.full(b.n_latents, -1, dtype=np.int64)
    back_cosine = np.full(b.n_latents, np.nan)
    matched = np.flatnonzero(made.partner >= 0)
    back[made.partner[matched]] = matched
    back_cosine[made.partner[matched]] = made.cosine[matched]
    single = [(made.partner, made.cosine), (back, back_cosine)]
    forth, reverse = (
        Partners(
            max_cosine=cosine[i],
            partner_id=ids[1 - i][nearest[i]],
            mutual=nearest[1 - i][nearest[i]] == np.arange(len(nearest[i])),
            one_to_one_partner_id=np.where(single[i][0] >= 0, ids[1 - i][single[i][0]], -1),
            one_to_one_cosine=single[i][1],
            q_value=q[i],
        )
        for i in (0, 1)
    )
    return forth, reverse


def _columns(partners: Partners | None, n: int) -> dict[str, Any]:
    """The six columns, null for a run itself."""
    import pandas as pd

    nobody = np.full(n, partners is None)
    out: dict[str, Any] = {}
    for column in COLUMNS:
        values = None if partners is None else getattr(partners, column)
        if column.endswith("_id"):
            ids = np.full(n, -1) if values is None else np.array(values)
            out[column] = pd.arrays.IntegerArray(ids.astype(np.int64), ids < 0)
        elif column == "mutual":
            flags = np.zeros(n, dtype=bool) if values is None else np.array(values)
            out[column] = pd.arrays.BooleanArray(flags, nobody)
        else:
            out[column] = np.full(n, np.nan) if values is None else values
    return out
