"""One direction of a matching between two dictionaries, and the nearest-neighbor matching built from a sweep."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import counted, or_dash
from sae_geometry.io.frozen import read_only
from sae_geometry.kernels.types import Best
from sae_geometry.matching import On
from sae_geometry.matching.defaults import DISCOVERY_RATE, MatchingName
from sae_geometry.nulls import Controls, Expected, Share, competition, expected_max_cosine

THRESHOLDS = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """One direction of a comparison: the partner in `target` of each latent of `source`, with their similarity.

    Attributes:
        source, target: names of the two dictionaries.
        method: "nearest" allows double counting; "mutual", "greedy" and "optimal" are one-to-one.
        on: "decoder" directions, "encoder" directions, or "both" (the mean of the two cosines).
        signed: whether similarity is the cosine (True) or its absolute value.
        source_ids: int64 [n], original ids of the source's latents.
        target_ids: int64 [m], original ids of the target's latents.
        similarity: float64 [n], cos(a_i, b_partner) (absolute if not signed); nan for no partner.
        cosine: float64 [n], the signed cosine.
        partner: int64 [n], original id of the partner; −1 for none.
        partner_row: int64 [n], the partner's position in `target_ids`; −1 for none.
        mutual: bool [n], whether latent and partner are mutual nearest neighbors.
        controls: similarities of each latent to the two controls, for any method.
        expected_pairs: null expectation from the same one-to-one matching with the turned target; None for "nearest" or
            if it was not computed, and unknown (nan) for a selection of pairs.
        own_pairs: the same one-to-one matching between two halves of the source; None in the same cases.
        isotropic_dimensions: d of the isotropic reference; None if there is none (for a mean of two cosines).
    """

    source: str
    target: str
    method: MatchingName
    on: On
    signed: bool
    source_ids: np.ndarray
    target_ids: np.ndarray
    similarity: np.ndarray
    cosine: np.ndarray
    partner: np.ndarray
    partner_row: np.ndarray
    mutual: np.ndarray
    controls: Controls
    isotropic_dimensions: int | None
    expected_pairs: Expected | None = None
    own_pairs: Expected | None = None

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, np.ndarray):
                if name in ("similarity", "cosine"):  # Cosines of float32 unit rows may reach 1.00000004.
                    value = value.clip(-1.0, 1.0)
                object.__setattr__(self, name, read_only(value))

    @property
    def n_latents(self) -> int:
        """Return n, the number of source latents."""
        return len(self.source_ids)

    @property
    def quantity(self) -> str:
        """Return the meaning of `similarity` in words: "decoder cosine", "absolute encoder cosine", …"""
        what = "mean of decoder and encoder cosine" if self.on == "both" else f"{self.on} cosine"
        return what if self.signed else f"absolute {what}"

    @property
    def isotropic_chance(self) -> float:
        """Return the expected similarity to the *nearest* of `n_candidates` isotropic directions; nan for "both"."""
        if self.isotropic_dimensions is None or not self.n_candidates:
            return float("nan")
        return expected_max_cosine(self.n_candidates, self.isotropic_dimensions, absolute=not self.signed)

    @property
    def n_candidates(self) -> int:
        """Return the number of candidates per source latent: m, or m − 1 within one dictionary."""
        return len(self.target_ids) - (self.source == self.target)

    @property
    def expected(self) -> Expected:
        """Return the null expectation: the same computation against the turned target, which shares no latents.

        For "nearest", it comes from the turned control; for a one-to-one matching, it is nan if it was not computed.
        """
        if self.method != "nearest" or self.expected_pairs is not None:
            return self.expected_pairs or Expected()
        if not self.n_candidates:
            return Expected()
        return Expected.over_turns(self.controls.turned_means, float(self.n_latents))

    @property
    def chance(self) -> float:
        """Return the mean similarity expected by chance, which is `expected.mean_similarity`."""
        return self.expected.mean_similarity

    @property
    def own(self) -> float:
        """Return the mean similarity of the source with itself, under the same matching.

        For "nearest", this is the similarity to the nearest other latent of the source, among as many as the target has
        if the target is narrower; for a one-to-one matching, it is the similarity between two halves of the source. It
        is nan within a dictionary, and if it was not computed: with no turns, or if in neither dictionary own latents
        are nearer than those of the turned other dictionary.
        """
        if self.method != "nearest":
            return float("nan") if self.own_pairs is None else self.own_pairs.mean_similarity
        known = np.isfinite(self.controls.own)
        return float(self.controls.own[known].mean()) if known.any() else float("nan")

    @property
    def chance_adjusted(self) -> float:
        """Return (mean − chance) / (1 − chance): 0 is the null expectation, 1 identity.

        This is the adjustment of kappa statistics (Cohen 1960). It is nan if chance is unknown or 1.
        """
        return (self.mean_similarity - self.chance) / (1 - self.chance) if self.chance < 1 else float("nan")

    @cached_property
    def excess(self) -> np.ndarray:
        """Return W, float64 [n]: the excess of partner or decoy over the crowd; negative if the decoy is stronger."""
        return read_only(competition.excess(self.similarity, self.controls))

    @cached_property
    def _nearest_excess(self) -> np.ndarray:
        nearest = self.controls.target[:, 0].clip(-1.0, 1.0)  # clipped like `similarity`
        return competition.excess(nearest, self.controls)

    @cached_property
    def _undecided(self) -> np.ndarray:
        return competition.undecided(self._nearest_excess, self.controls.odds)

    @cached_property
    def q_value(self) -> np.ndarray:
        """Return the smallest FDR at which each latent's partner is significant, float64 [n]; 1 for losses.

        The nearest latents compete under any method; one-to-one partners are judged by the same thresholds.
        """
        return read_only(competition.q_values(self._nearest_excess, self.controls.odds, at=self.excess))

    def q_values_of(self, rows: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Return the q-values of other partners of some source latents: `similarity` [r] at positions `rows` [r]."""
        every = np.full(self.n_latents, np.nan)
        every[rows] = similarity
        w = competition.excess(every, self.controls)
        return competition.q_values(self._nearest_excess, self.controls.odds, at=w)[rows]

    @cached_property
    def significant(self) -> np.ndarray:
        """Return which latents have a significant partner (FDR 5%), bool [n]."""
        return read_only(self.q_value <= DISCOVERY_RATE)

    @property
    def significant_fraction(self) -> float:
        """Return the share of *all* source latents that are `significant`."""
        return float(self.significant.mean())

    @property
    def beyond_controls(self) -> Share:
        """Return a lower bound on the share of latents whose partner no control explains: 2 · wins − 1 at odds of 1."""
        return competition.beyond_controls(self._nearest_excess, self.controls.odds)

    @cached_property
    def balance(self) -> dict[str, Share]:
        """Return how often the nearest latent beats each control in the low half of undecided latents; ½ if fair.

        The stronger control decides, so a weak control does no harm if the other is fair; `doubts` reports if both are
        too weak. Keys: "own" (absent within one dictionary), "turned".
        """
        nearest = self.controls.target[:, 0]
        sides = {"own": self.controls.own, "turned": self.controls.turned}
        return {
            name: competition.balance(nearest[self._undecided], control[self._undecided])
            for name, control in sides.items()
            if name == "turned" or np.isfinite(control).any()
        }

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return sentences on why `significant` may mislead: too few latents, or controls that are too weak."""
        least = math.ceil(self.controls.ratio / DISCOVERY_RATE)
        if self.n_latents < least:
            few = f"too few for any to be significant: {counted(self.n_latents, 'latent')}"
            return (f"{self.source} → {self.target}: {few}, and at least {least:,} would have to win",)
        return () if self._too_weak is None else (self._too_weak,)

    @property
    def _too_weak(self) -> str | None:
        wins = competition.balance(self.controls.target[self._undecided, 0], self.controls.decoys[self._undecided, 0])
        if not wins.low > 0.5:
            return None
        return (
            f"{self.source} → {self.target}: undecided latents win {wins.value:.0%} by "
            f"{self.quantity}, where fair controls allow 50%: either they have true but weak partners, or the "
            "controls are too weak and too many latents are significant"
        )

    @property
    def n_matched(self) -> int:
        """Return the number of source latents with a partner."""
        return int((self.partner_row >= 0).sum())

    @property
    def mean_similarity(self) -> float:
        """Return the mean similarity of matched latents: the MMCS for "nearest", the PW-MCC for "optimal"."""
        matched = self.partner_row >= 0
        return float(self.similarity[matched].mean()) if matched.any() else float("nan")

    @property
    def mmcs(self) -> float:
        """Return the mean maximum cosine similarity MMCS(source→target), for "nearest" only.

        Raises:
            ValueError: a one-to-one matching, whose mean is `mean_similarity`.
        """
        if self.method != "nearest":
            raise ValueError(f"MMCS is the mean over nearest partners; for {self.method}, use mean_similarity")
        return self.mean_similarity

    def fraction_above(self, threshold: float) -> float:
        """Return the share of *all* source latents with similarity > threshold; unmatched latents count as below."""
        return float((self.similarity > threshold).mean())

    def fraction_above_by_chance(self, threshold: float) -> float:
        """Return the share of *all* source latents whose nearest latent in the turned target is above the threshold.

        For a one-to-one matching, this is an upper bound, since its partners are no closer than the nearest latents.
        """
        return float((self.controls.turned > threshold).mean())

    @cached_property
    def multiplicity(self) -> np.ndarray:
        """Return the number of source latents whose partner is each target latent, int64 [m]."""
        taken = self.partner_row[self.partner_row >= 0]
        return np.bincount(taken, minlength=len(self.target_ids)).astype(np.int64)

    @property
    def coverage(self) -> float:
        """Return the share of target latents that are the partner of at least one source latent."""
        return float((self.multiplicity > 0).mean())

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per source latent.

        Columns: run, latent_id, partner_run, partner_id (−1 for none), cosine, mutual, q_value, significant, matching.
        """
        return pd.DataFrame(
            {
                "run": self.source,
                "latent_id": self.source_ids,
                "partner_run": self.target,
                "partner_id": self.partner,
                "cosine": self.cosine,
                "mutual": self.mutual,
                "q_value": self.q_value,
                "significant": self.significant,
                "matching": self.method,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the means, shares and null expectations of this direction as a JSON-ready dict."""
        return {
            "source": self.source,
            "target": self.target,
            "matching": self.method,
            "similarity": self.quantity,
            "n_source": self.n_latents,
            "n_target": len(self.target_ids),
            "n_matched": self.n_matched,
            "mean_similarity_of_matched": self.mean_similarity,
            "fraction_of_source_above": {f"{t}": self.fraction_above(t) for t in THRESHOLDS},
            "n_mutual": int(self.mutual.sum()),
            "coverage_of_target": self.coverage,
            "largest_multiplicity": int(self.multiplicity.max()),
            "expected_by_chance": self._chance_summary(),
            "significant": self.significance_summary(),
        }

    def _chance_summary(self) -> dict[str, Any]:
        return {
            "means": "the same computation against the turned target, which keeps the principal axes and inner cosines",
            **asdict(self.expected),
            "own_dictionary": None if np.isnan(self.own) else self.own,
            "nearest_isotropic": self.isotropic_chance,
            "mean_adjusted_for_chance": self.chance_adjusted,
            "nearest_fraction_of_source_above": {f"{t}": self.fraction_above_by_chance(t) for t in THRESHOLDS},
        }

    def significance_summary(self) -> dict[str, Any]:
        """Return the shares of significant latents and the balance of the controls as a JSON-ready dict."""
        return {
            "means": "closer to its partner than its own dictionary and the turned target explain",
            "false_discovery_rate": DISCOVERY_RATE,
            "n": int(self.significant.sum()),
            "fraction_of_source": self.significant_fraction,
            "fraction_beyond_controls_at_least": asdict(self.beyond_controls),
            "balance": {name: asdict(share) for name, share in self.balance.items()},
            "doubts": list(self.doubts),
        }

    def __repr__(self) -> str:
        return (
            f"Matching {self.source} → {self.target}, {self.method} ({self.quantity}): "
            f"mean {self.mean_similarity:.4f} over {self.n_matched:,} of {self.n_latents:,}; "
            f"{self.fraction_above(0.7):.1%} above 0.7; chance {or_dash(self.chance, '.3f')}; "
            f"{self.significant_fraction:.1%} significant"
        )


def nearest_matching(
    a: Dictionary, b: Dictionary, best: Best, controls: Controls, *, on: On = "decoder", signed: bool = True
) -> Matching:
    """Build the nearest-neighbor matching from a sweep; `with_mutual` fills in `mutual`."""
    cosine, row = best.cosine[:, 0].cpu().numpy(), best.index[:, 0].cpu().numpy()
    target_ids = b.latent_ids.cpu().numpy()
    encoder_width = None if a.encoder_directions is None else a.encoder_directions.shape[1]
    return Matching(
        source=a.name,
        target=b.name,
        method="nearest",
        on=on,
        signed=signed,
        source_ids=a.latent_ids.cpu().numpy(),
        target_ids=target_ids,
        similarity=cosine if signed else np.abs(cosine),
        cosine=cosine,
        partner=np.where(row >= 0, target_ids[row], -1),
        partner_row=row,
        mutual=np.zeros(a.n_latents, dtype=bool),
        controls=controls,
        isotropic_dimensions={"decoder": a.d_in, "encoder": encoder_width, "both": None}[on],
    )


def with_mutual(forth: Matching, back: Matching) -> Matching:
    """Return `forth` with `mutual` set where `back` leads back to the same latent."""
    there = forth.partner_row
    return replace(forth, mutual=(there >= 0) & (back.partner_row[there] == np.arange(len(there))))


def one_to_one_matching(
    nearest: Matching, reverse: Matching, method: MatchingName, partner_row: np.ndarray, cosine: np.ndarray
) -> Matching:
    """Build one direction of a one-to-one matching from partner rows (−1 for none) and signed cosines (nan for none).

    `nearest` and `reverse` are the nearest-neighbor matchings of this and the other direction.
    """
    matched = partner_row >= 0
    rows = np.flatnonzero(matched)
    mutual = np.zeros(len(partner_row), dtype=bool)
    mutual[rows] = (nearest.partner_row[rows] == partner_row[rows]) & (reverse.partner_row[partner_row[rows]] == rows)
    return replace(
        nearest,
        method=method,
        similarity=cosine if nearest.signed else np.abs(cosine),
        cosine=cosine,
        partner=np.where(matched, nearest.target_ids[partner_row], -1),
        partner_row=partner_row,
        mutual=mutual,
    )
