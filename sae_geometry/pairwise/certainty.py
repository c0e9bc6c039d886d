"""Certainty of matched pairs: their margins to other candidates, and the mean over the most certain pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sae_geometry.io.formatting import counted
from sae_geometry.kernels.types import Best
from sae_geometry.nulls import Expected
from sae_geometry.pairwise.matching_result import Matching


@dataclass(frozen=True, eq=False)
class Certainty:
    """Margins of the pairs of a matching, in one direction.

    Attributes:
        margin: float64 [n], similarity of latent i and its partner p minus that of i and its best other candidate.
            Negative if another candidate is closer; inf if there is no other; nan if there is no partner.
        margin_of_partner: float64 [n], similarity of i and p minus that of p and its best other candidate.
    """

    margin: np.ndarray
    margin_of_partner: np.ndarray

    @property
    def least(self) -> np.ndarray:
        """Return the smaller of both margins, float64 [n]: positive only for mutual nearest neighbors."""
        return np.minimum(self.margin, self.margin_of_partner)

    @property
    def forced(self) -> np.ndarray:
        """Return which pairs are forced, bool [n]: each of the two latents has a closer candidate than its partner."""
        return (self.margin < 0) & (self.margin_of_partner < 0)


def certainty(m: Matching, rows: Best, cols: Best) -> Certainty:
    """Compute the margins of a matching's pairs from the two or more best partners of every row and column."""
    has = np.flatnonzero(m.partner_row >= 0)
    there = m.partner_row[has]
    own, other = np.full(m.n_latents, np.nan), np.full(m.n_latents, np.nan)
    own[has] = m.similarity[has] - _rival(rows, has, there)
    other[has] = m.similarity[has] - _rival(cols, there, has)
    return Certainty(own, other)


def _rival(best: Best, at: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Return the largest score of rows `at` with a candidate other than their partner; −inf if there is none."""
    score, index = best.score[:, :2].cpu().numpy()[at], best.index[:, 0].cpu().numpy()[at]
    return np.where(index == partner, score[:, 1], score[:, 0])


def coverage_curve(similarity: np.ndarray, certain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of latents in the k most certain pairs and the mean similarity of these pairs, for every k.

    Both are float64 [number of pairs]. The most certain pairs are those with the largest margins.
    """
    matched = np.flatnonzero(~np.isnan(similarity))
    order = matched[np.argsort(-certain[matched], kind="stable")]
    count = np.arange(1, len(order) + 1)
    return count / max(len(similarity), 1), np.cumsum(similarity[order]) / count


def with_min_margin(m: Matching, certain: Certainty, least: float) -> Matching:
    """Return the matching without the pairs whose smaller margin is below `least`; their latents become unmatched.

    The null expectation of such a selection is unknown, and is set to nan.
    """
    keep = certain.least >= least
    return replace(
        m,
        similarity=np.where(keep, m.similarity, np.nan),
        cosine=np.where(keep, m.cosine, np.nan),
        partner=np.where(keep, m.partner, -1),
        partner_row=np.where(keep, m.partner_row, -1),
        mutual=m.mutual & keep,
        expected_pairs=Expected(),
        own_pairs=Expected(),
    )


def forced_words(m: Matching, certain: Certainty) -> list[str]:
    """Describe the forced pairs of an optimal matching; return [] if there are none or the matching is not optimal."""
    forced = certain.forced
    if m.method != "optimal" or not forced.any():
        return []
    others = (m.partner_row >= 0) & ~forced
    rest = f"; mean of the other {others.sum():,}: {m.similarity[others].mean():.3f}" if others.any() else ""
    return [
        f"forced: {counted(int(forced.sum()), 'pair')} of {m.n_matched:,} in which both latents have a closer "
        f"candidate that is taken; mean {m.similarity[forced].mean():.3f}{rest}"
    ]
