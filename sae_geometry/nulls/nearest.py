"""What chance gives to nearest partners: isotropic and covariance-matched means, and a p-value for each latent."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sae_geometry.nulls.cache import remembered_null
from sae_geometry.nulls.isotropic import expected_max_cosine
from sae_geometry.nulls.matched import MatchedNull, fit_matched_null, spread

_FOLDS = 5
_AT_ONCE = 1 << 25  # numbers of the source copied at once
_FOR_MEANS, _FOR_SHARES = 256, 4096  # source directions averaged over; few of them may make up a small share


@dataclass(frozen=True, eq=False)
class NearestChance:
    """How close the best of m random directions would come to each source direction; computed when first asked for.

    Within one dictionary a latent would be part of what the null is fitted to, and the null too close to it: there the
    latents are dealt into five folds, and each is judged by a null fitted to the other four.

    Attributes:
        source: rows [n, d] of length at most one, for which partners are sought.
        target: rows [m, d], whose mean and second moment the matched null has, once normalised; rows of zeros do not
            count.
        n_candidates: how many directions compete: m, or m − 1 within one dictionary.
        absolute: whether similarity is |cos|.
        isotropic_dimensions: d of the isotropic null; None where there is none (a mean of two cosines).
        within: whether source and target are the same latents.
        target_key: gives what the target's rows are known by; the null of rows that were met before is not fitted anew.
    """

    source: np.ndarray
    target: np.ndarray
    n_candidates: int
    absolute: bool
    isotropic_dimensions: int | None
    within: bool = False
    target_key: Callable[[], Hashable] | None = None

    @cached_property
    def isotropic(self) -> float:
        """E[max cos] over isotropic directions: see `expected_max_cosine`. nan where there is no such null."""
        if self.isotropic_dimensions is None or self.n_candidates < 1:
            return float("nan")
        return expected_max_cosine(self.n_candidates, self.isotropic_dimensions, absolute=self.absolute)

    @cached_property
    def null(self) -> MatchedNull:
        """The covariance-matched null of all of the target's directions."""
        if self.target_key is None:
            return _fitted(self.target)
        return remembered_null(self.target_key(), _with_length(self.target))

    @cached_property
    def matched(self) -> float:
        """E[max cos] over directions of the matched null, the mean over at most about 256 source directions."""
        parts = self._sample(_FOR_MEANS)
        means = [
            null.expected_max(x, n_candidates=self.n_candidates, absolute=self.absolute, at_most=len(x))
            for x, null, _ in parts
        ]
        return float(np.average(means, weights=[n for _, _, n in parts])) if parts else float("nan")

    def share_above(self, thresholds: Sequence[float]) -> np.ndarray:
        """float64 [T]: the share of source latents that the best of m random directions would bring above each t.

        The mean of P(max over j ≤ m of cos ≥ t) over at most about 4,096 source directions, y of the matched null. No
        one-to-one matching on such directions has more above t. nan where the null has no tail.
        """
        t = np.asarray(thresholds, dtype=np.float64)
        parts = self._sample(_FOR_SHARES)
        if self.n_candidates < 1 or not parts or not all(null.has_tail for _, null, _ in parts):
            return np.full(len(t), np.nan)
        shares = [
            null.exceeding(x, t, n_candidates=self.n_candidates, absolute=self.absolute).mean(axis=0)
            for x, null, _ in parts
        ]
        return np.asarray(np.average(shares, axis=0, weights=[n for _, _, n in parts]))

    def p_values(self, similarity: np.ndarray) -> np.ndarray:
        """P(the best of m random directions reaches the similarity) for each source latent: see `MatchedNull`."""
        p = np.full(len(similarity), np.nan)
        step = max(1, _AT_ONCE // self.source.shape[1])
        for judged, null in self._judges:
            for start in range(0, len(judged), step):
                rows = judged[start : start + step]
                x = self.source[rows]
                length = np.linalg.norm(x, axis=1)
                p[rows] = null.p_values(
                    x / length[:, None],
                    similarity[rows] / length,
                    n_candidates=self.n_candidates,
                    absolute=self.absolute,
                )
        return p

    def _sample(self, size: int) -> list[tuple[np.ndarray, MatchedNull, int]]:
        """About `size` source directions over all nulls, evenly spaced, and how many latents each null judges."""
        judges = [(rows, null) for rows, null in self._judges if len(rows)]
        most = -(-size // max(len(judges), 1))
        return [(_unit(self.source[rows[spread(len(rows), most)]]), null, len(rows)) for rows, null in judges]

    @cached_property
    def _judges(self) -> list[tuple[np.ndarray, MatchedNull]]:
        """Which source rows are judged by which null. Rows of zeros are judged by none."""
        there = np.flatnonzero(self.source.any(axis=1))
        if not self.within or len(there) < _FOLDS:
            return [(there, self.null)]
        folds = [there[fold::_FOLDS] for fold in range(_FOLDS)]
        return [(fold, _fitted(np.delete(self.target, fold, axis=0))) for fold in folds]


def _fitted(rows: np.ndarray) -> MatchedNull:
    return fit_matched_null(_with_length(rows))


def _with_length(rows: np.ndarray) -> np.ndarray:
    """Those that are not of zeros; not copied where all are there."""
    there = rows.any(axis=1)
    return rows if there.all() else rows[there]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass(frozen=True)
class PairedChance:
    """What a one-to-one matching gives on random dictionaries, by simulation.

    Attributes:
        mean_similarity: over the matched pairs, averaged over draws.
        n_pairs: how many pairs, averaged over draws.
        draws: how many pairs of random dictionaries were matched.
        standard_error: of `mean_similarity`; nan for a single draw.
    """

    mean_similarity: float
    n_pairs: float
    draws: int
    standard_error: float
