"""Significance by competition: does the nearest latent of the other dictionary beat the nearest decoy?

For a latent that the other dictionary lacks, that dictionary's latents (targets) are exchangeable with decoys: the
other latents of its own dictionary, or the turned other dictionary. Its nearest target then wins against its nearest
decoy at most half the time, and the losses estimate the number of false wins. This is target-decoy competition (Elias &
Gygi 2007) with the threshold of knockoff+ (Barber & Candès 2015); no distribution is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sae_geometry.matching.defaults import DISCOVERY_RATE

LISTED = 9  # number of targets listed per latent, and of decoys
_Z = 1.959963984540054
_SHRINK = 1.5  # Multiple of the median spread that is added to each spread, since tiny spreads are mostly noise.
_LOOSEST = 6.0  # Maximum spread in multiples of the median, since equal partners can make a spread arbitrarily large.
_NO_SPREAD = 1e-6
_ENOUGH_LOSSES = 20  # minimum number of losses among undecided latents to measure their odds
_LEFT = 0.5  # minimum share of decoys assumed to remain when the significant latents are left out


@dataclass(frozen=True, eq=False)
class Controls:
    """Similarities of each latent of one dictionary to the other and to the two controls, in descending order.

    Attributes:
        target: float64 [n, 9], similarities to the other dictionary, padded with −inf.
        own: float64 [n], the largest similarity to a latent of its own dictionary with another direction; −inf
            if there is none, and within one dictionary.
        turned: float64 [n], the largest similarity to the turned other dictionary.
        decoys: float64 [n, 9], the largest similarities to both controls together.
        ratio: number of targets per latent of its own dictionary, at least 1.
        turned_means: the mean of `turned` for each turn, including the first.
    """

    target: np.ndarray
    own: np.ndarray
    turned: np.ndarray
    decoys: np.ndarray
    ratio: float
    turned_means: tuple[float, ...]

    @property
    def odds(self) -> np.ndarray:
        """Return the odds of a false win against the stronger decoy, float64 [n]: 1 against the turned dictionary."""
        return np.where(self.own > self.turned, self.ratio, 1.0)


@dataclass(frozen=True)
class Share:
    """Share with its 95% Wilson interval for n independent latents, which is too narrow for clustered latents."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def crowd(controls: Controls) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of ranks 2 to 9 of all candidates, and the standard deviation of ranks 3 to 9, float64 [n].

    The mean is nan with fewer than two candidates. Both are invariant under exchange of target and decoy. The deviation
    skips rank 2, which may be a copy of the partner and then says nothing about how loose the crowd is.
    """
    listed = -np.sort(-np.concatenate([controls.target, controls.decoys], axis=1), axis=1)[:, 1:LISTED]
    known = np.isfinite(listed)
    count = np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    mean = np.where(known, listed, 0.0).sum(axis=1) / count
    rest, there = np.where(known, listed, 0.0)[:, 1:], known[:, 1:]
    n_rest = np.maximum(there.sum(axis=1), 1)
    away = np.where(there, rest - (rest.sum(axis=1) / n_rest)[:, None], 0.0)
    return mean, np.sqrt((away**2).sum(axis=1) / n_rest)


def excess(similarity: np.ndarray, controls: Controls) -> np.ndarray:
    """Return W, float64 [n]: how far the stronger of partner and decoy exceeds the crowd; negative for the decoy.

    W_i = sign(s_i − q_i) · (max(s_i, q_i) − c_i) / (σ_i + 1.5 σ), with q_i the stronger decoy, c_i the crowd, σ_i the
    standard deviation of its ranks 3 to 9, at most 6 σ, and σ the median of all σ_i (README.md explains why). A tie
    goes to the decoy, and a latent without a crowd has W = 0.

    Args:
        similarity: s [n], similarity to the partner, which need not be the nearest; nan, for no partner, loses.
        controls: controls of the same latents.
    """
    s, q = np.where(np.isnan(similarity), -np.inf, similarity), controls.decoys[:, 0]
    mean, spread = crowd(controls)
    known = spread[np.isfinite(spread)]
    middle = float(np.median(known)) if len(known) else 0.0
    scale = np.minimum(spread, _LOOSEST * middle) + _SHRINK * middle + _NO_SPREAD
    height = np.nan_to_num((np.maximum(s, q) - mean) / scale, nan=0.0, neginf=0.0)
    return np.where(s > q, height, -height)


def q_values(w: np.ndarray, odds: float | np.ndarray, at: np.ndarray | None = None) -> np.ndarray:
    """Return the smallest false discovery rate at which each latent is significant, float64 in (0, 1]; 1 for losses.

    A loss with odds o is evidence of o false wins. Among latents with |W| ≥ t, the estimated false discovery rate is
    (largest odds + summed odds of the losses / (1 − f)) / number of wins, where f is the share of latents that are
    significant with f = 0, at most ½ (README.md has the derivation). With f = 0 and all odds equal to 1, this is the
    knockoff+ estimate. The q-value of a win is the smallest estimate over all t ≤ W. If undecided latents win more
    often than the odds imply, all odds are multiplied by a common factor.

    Args:
        w: competition statistic W of each latent's nearest partner, [n].
        odds: odds that a false candidate beats its decoy, from the numbers of candidates; a scalar or [n].
        at: W of other partners, judged by the same thresholds; `w` if None.
    """
    lost = np.where(w > 0, 0.0, odds)
    rest = undecided(w, odds)
    expected = float(lost[rest].sum()) if (lost[rest] > 0).sum() >= _ENOUGH_LOSSES else math.inf
    raised = max(1.0, float((w[rest] > 0).sum()) / expected)
    found = float((_estimates(w, odds, raised) <= DISCOVERY_RATE).mean()) if len(w) else 0.0
    return _estimates(w, odds, raised, max(1 - found, _LEFT), at)


def _estimates(
    w: np.ndarray, odds: float | np.ndarray, raised: float = 1.0, left: float = 1.0, at: np.ndarray | None = None
) -> np.ndarray:
    """Return the q-values for odds multiplied by `raised`, assuming that the share `left` of the decoys remains."""
    heights, first = np.unique(np.abs(w), return_inverse=True)
    wins, losses = (
        np.bincount(first, weight, len(heights))[::-1].cumsum()[::-1] for weight in (w > 0, np.where(w > 0, 0.0, odds))
    )
    estimate = raised * (np.max(odds, initial=1.0) + losses / left) / np.maximum(wins, 1)
    smallest = np.minimum.accumulate(estimate)
    asked = w if at is None else at
    below = np.searchsorted(heights, asked, side="right") - 1
    return np.where((asked > 0) & (below >= 0), np.minimum(smallest[np.maximum(below, 0)], 1.0), 1.0)


def undecided(w: np.ndarray, odds: float | np.ndarray) -> np.ndarray:
    """Return which latents have a smaller |W| than every significant latent, bool [n]; all if none is significant.

    The condition depends on |W| alone, so it is invariant under exchange of target and decoy.
    """
    wins = _estimates(w, odds) <= DISCOVERY_RATE
    return np.abs(w) < w[wins].min() if wins.any() else np.ones(len(w), dtype=bool)


def balance(target: np.ndarray, control: np.ndarray) -> Share:
    """Return how often the target wins in the low half, where a fair control loses at most half the time.

    The low half is the half of the latents with the smaller max(target, control), which is invariant under exchange of
    the two. A tie counts as half a win. At a result well above ½, the control is too weak and wins are not evidence;
    below ½, the control is too strong and significance is conservative. Latents without a control (−inf) are ignored.
    """
    known = np.isfinite(control) & np.isfinite(target)
    s, q = target[known], control[known]
    if not len(s):
        return Share(math.nan, math.nan, math.nan, 0)
    height = np.maximum(s, q)
    low = height <= np.median(height)
    return share_of(float((s > q)[low].sum() + 0.5 * (s == q)[low].sum()), int(low.sum()))


def beyond_controls(w: np.ndarray, odds: float | np.ndarray = 1.0) -> Share:
    """Return a threshold-free lower bound on the share of latents whose partner no control explains.

    Latents with an explained partner win at most `odds` times as often as they lose: at odds of 1, at most half the
    time, so the share is at least 2 · wins − 1.
    """
    lost = np.broadcast_to(odds, w.shape)[w <= 0]
    mean = float(lost.mean()) if len(lost) else 1.0
    wins = share_of(float((w > 0).sum()), len(w))
    value, low, high = (max(0.0, x - mean * (1 - x)) for x in (wins.value, wins.low, wins.high))
    return Share(value, low, high, len(w))


def share_of(count: int | float, n: int) -> Share:
    """Return count / n with its Wilson interval; nan if n is 0."""
    if n == 0:
        return Share(math.nan, math.nan, math.nan, 0)
    p, z2 = count / n, _Z**2 / n
    middle, half = (p + z2 / 2) / (1 + z2), _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n)) / (1 + z2)
    return Share(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n)
