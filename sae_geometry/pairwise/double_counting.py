"""Double counting: how much of a mean max cosine similarity is due to shared partners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_geometry.io.formatting import or_dash
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.pairwise.matching_result import Matching, MatchingName

N_HUBS = 10
_ARROWS = {"a_to_b": "A → B", "b_to_a": "B → A"}


@dataclass(frozen=True)
class Count:
    """Count of the pairs of one matching, with their direction, mean similarity, and share above a threshold.

    `direction` is "a_to_b" or "b_to_a" for nearest, "both" for a one-to-one matching, whose pairs are the same in
    both directions. `above` is a share of the pairs. `chance` is the null expectation of `mean_similarity`, computed
    against the turned B; nan if it was not computed.
    """

    matching: MatchingName
    direction: str
    n_pairs: int
    mean_similarity: float
    above: float
    chance: float = float("nan")

    @property
    def name(self) -> str:
        """Return the matching and, if it has one, the direction: "optimal" or "nearest, A → B"."""
        return self.matching if self.direction == "both" else f"{self.matching}, {_ARROWS[self.direction]}"


@dataclass(frozen=True)
class Hub:
    """Target latent that is the nearest of several source latents, its `claimants`, listed most similar first."""

    target: str
    target_id: int
    times_taken: int
    claimants: tuple[int, ...]
    similarities: tuple[float, ...]


@dataclass(frozen=True)
class DoubleCounting:
    """Double counting in one comparison: the counts of all matchings, and the latents that are taken repeatedly.

    Attributes:
        counts: counts of the nearest (both directions), mutual, greedy and optimal matchings.
        explained_a_to_b, explained_b_to_a: 1 − mean_{i∈M} S(i, π(i)) / mean_{i∈M} max_j S(i, j), with π the optimal
            matching and M the source latents that it matches: the share of their MMCS that is due to shared partners;
            nan if that MMCS is not positive.
        hubs_of_b, hubs_of_a: the ten latents of B (of A) that are the nearest of the most latents of A (of B), at least
            two.
        threshold: similarity above which pairs are counted.
    """

    counts: tuple[Count, ...]
    explained_a_to_b: float
    explained_b_to_a: float
    hubs_of_b: tuple[Hub, ...]
    hubs_of_a: tuple[Hub, ...]
    threshold: float = THRESHOLD

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per count: matching, direction, n_pairs, mean_similarity, above, chance."""
        return pd.DataFrame([asdict(c) for c in self.counts])

    def summary(self) -> dict[str, Any]:
        """Return the counts, explained shares and hubs as a JSON-ready dict."""
        return {
            "threshold": self.threshold,
            "counts": [asdict(c) for c in self.counts],
            "explained_means": "1 - mean optimal similarity / mean nearest similarity, over the latents that the "
            "optimal matching matches",
            "explained_a_to_b": self.explained_a_to_b,
            "explained_b_to_a": self.explained_b_to_a,
            "hubs_of_b": [asdict(h) for h in self.hubs_of_b],
            "hubs_of_a": [asdict(h) for h in self.hubs_of_a],
        }

    def __str__(self) -> str:
        lines = [f"{'counting':<18}{'pairs':>8}{'mean':>9}{f'> {self.threshold:g}':>8}"]
        for c in self.counts:
            lines.append(f"{c.name:<18}{c.n_pairs:>8,}{c.mean_similarity:>9.4f}{c.above:>8.1%}")
        lines.append(
            f"double counting explains {or_dash(self.explained_a_to_b, '.1%')} of MMCS(A → B), "
            f"{or_dash(self.explained_b_to_a, '.1%')} of MMCS(B → A), over the matched latents"
        )
        return "\n".join(lines)


def double_counting(
    forth: Matching, back: Matching, one_to_one: Sequence[tuple[Matching, Matching]], threshold: float
) -> DoubleCounting:
    """Decompose the MMCS, given (forth, back) of the nearest-neighbor and each one-to-one matching, optimal last."""
    best_forth, best_back = one_to_one[-1]
    return DoubleCounting(
        counts=(
            _count(forth, "a_to_b", threshold),
            _count(back, "b_to_a", threshold),
            *(_count(there, "both", threshold) for there, _ in one_to_one),
        ),
        explained_a_to_b=_explained(forth, best_forth),
        explained_b_to_a=_explained(back, best_back),
        hubs_of_b=hubs(forth),
        hubs_of_a=hubs(back),
        threshold=threshold,
    )


def hubs(nearest: Matching) -> tuple[Hub, ...]:
    """Return the ten largest hubs that are taken at least twice, by (times taken descending, row ascending)."""
    times = nearest.multiplicity
    order = np.lexsort((np.arange(len(times)), -times))[:N_HUBS]
    found = []
    for row in order[times[order] >= 2]:
        who = np.flatnonzero(nearest.partner_row == row)
        who = who[np.argsort(-nearest.similarity[who], kind="stable")]
        claimants, similarities = (tuple(x[who].tolist()) for x in (nearest.source_ids, nearest.similarity))
        found.append(Hub(nearest.target, int(nearest.target_ids[row]), int(times[row]), claimants, similarities))
    return tuple(found)


def _count(m: Matching, direction: str, threshold: float) -> Count:
    above = m.fraction_above(threshold) * m.n_latents / m.n_matched if m.n_matched else float("nan")
    return Count(m.method, direction, m.n_matched, m.mean_similarity, above, m.chance)


def _explained(nearest: Matching, optimal: Matching) -> float:
    matched = optimal.partner_row >= 0
    with_sharing = float(nearest.similarity[matched].mean()) if matched.any() else 0.0
    return 1 - optimal.mean_similarity / with_sharing if with_sharing > 0 else float("nan")
