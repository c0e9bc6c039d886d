"""Who is whose partner: one direction of a matching between two dictionaries, and the nearest one read off a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sae_geometry.describe import read_only
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.decide import Best
from sae_geometry.matching import On
from sae_geometry.nulls import expected_max_cosine

if TYPE_CHECKING:
    import pandas as pd

MatchingName = Literal["nearest", "mutual", "greedy", "optimal"]
THRESHOLDS = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False, repr=False)
class Matching:
    """One direction of a comparison: for each latent of `source`, its partner in `target` and how alike they are.

    Attributes:
        source, target: the two dictionaries' names.
        method: "nearest" counts double; "mutual", "greedy" and "optimal" are one-to-one.
        on: what is compared: "decoder" directions, "encoder" directions, or "both" (the mean of the two cosines).
        signed: whether similarity is the cosine (True) or its absolute value.
        source_ids: int64 [n], original ids of the source's latents.
        target_ids: int64 [m], original ids of the target's latents.
        similarity: float64 [n], cos(a_i, b_partner) (absolute if not signed); nan where there is no partner.
        cosine: float64 [n], the same with its sign.
        partner: int64 [n], original id of the partner; −1 for none.
        partner_row: int64 [n], the partner's position in `target_ids`; −1 for none.
        mutual: bool [n], whether the two are each other's nearest.
        chance: the mean similarity that the *nearest* of m isotropic random directions would reach, whatever the
            method; `chance_text` says what it is to a one-to-one matching. nan on "both", where chance depends on how
            encoder and decoder are aligned.
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
    chance: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, read_only(value))

    @property
    def n_latents(self) -> int:
        """n, latents of the source."""
        return len(self.source_ids)

    @property
    def quantity(self) -> str:
        """What `similarity` is, in words: "decoder cosine", "absolute encoder cosine", …"""
        return quantity(self.on, self.signed)

    @property
    def chance_text(self) -> str:
        """Chance for this way of counting, in a word.

        The value for "nearest"; an upper bound ("< 0.14") for a matching that pairs every source latent, none of which
        can do better than its nearest; "–" otherwise: a matching that picks its pairs beats any such bound.
        """
        if np.isnan(self.chance):
            return "–"
        if self.method == "nearest":
            return f"{self.chance:.3f}"
        forced = self.method != "mutual" and self.n_matched == self.n_latents
        return f"< {self.chance:.3f}" if forced else "–"

    @property
    def n_matched(self) -> int:
        """How many source latents have a partner."""
        return int((self.partner_row >= 0).sum())

    @property
    def mmcs(self) -> float:
        """Mean similarity over the matched: for "nearest", the mean max cosine similarity MMCS(source→target)."""
        matched = self.partner_row >= 0
        return float(self.similarity[matched].mean()) if matched.any() else float("nan")

    def fraction_above(self, threshold: float) -> float:
        """Share of *all* source latents whose similarity is > threshold; those without a partner count as not above."""
        return float((self.similarity > threshold).mean())

    @cached_property
    def multiplicity(self) -> np.ndarray:
        """int64 [m]: how many source latents take each target latent, in the order of `target_ids`."""
        taken = self.partner_row[self.partner_row >= 0]
        return np.bincount(taken, minlength=len(self.target_ids)).astype(np.int64)

    @property
    def coverage(self) -> float:
        """Share of target latents taken by at least one source latent."""
        return float((self.multiplicity > 0).mean())

    def to_pandas(self) -> pd.DataFrame:
        """One row a source latent: run, latent_id, partner_run, partner_id (−1 none), cosine, mutual, matching."""
        import pandas as pd

        return pd.DataFrame(
            {
                "run": self.source,
                "latent_id": self.source_ids,
                "partner_run": self.target,
                "partner_id": self.partner,
                "cosine": self.cosine,
                "mutual": self.mutual,
                "matching": self.method,
            }
        )

    def summary(self) -> dict[str, Any]:
        """The numbers of this direction, JSON-ready, each under a name that says what it is."""
        return {
            "source": self.source,
            "target": self.target,
            "matching": self.method,
            "similarity": self.quantity,
            "n_source": self.n_latents,
            "n_target": len(self.target_ids),
            "n_matched": self.n_matched,
            "mean_similarity_of_matched": self.mmcs,
            "fraction_of_source_above": {f"{t}": self.fraction_above(t) for t in THRESHOLDS},
            "n_mutual": int(self.mutual.sum()),
            "coverage_of_target": self.coverage,
            "largest_multiplicity": int(self.multiplicity.max()),
            "chance_mean_of_nearest_isotropic": self.chance,
        }

    def __repr__(self) -> str:
        return (
            f"Matching {self.source} → {self.target}, {self.method} ({self.quantity}): mean {self.mmcs:.4f} over "
            f"{self.n_matched:,} of {self.n_latents:,}; {self.fraction_above(0.7):.1%} above 0.7; "
            f"chance {self.chance_text}"
        )


def quantity(on: On, signed: bool) -> str:
    """What is measured, in words."""
    what = "mean of decoder and encoder cosine" if on == "both" else f"{on} cosine"
    return what if signed else f"absolute {what}"


def nearest_matching(
    a: Dictionary, b: Dictionary, best: Best, *, on: On = "decoder", signed: bool = True, within: bool = False
) -> Matching:
    """Each latent of `a` with its nearest in `b`, as the sweep found it; `mutual` is left to `with_mutual`."""
    cosine, row = best.cosine[:, 0].cpu().numpy(), best.index[:, 0].cpu().numpy()
    target_ids = b.latent_ids.cpu().numpy()
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
        chance=_chance(b.n_latents - within, _width(a, on), signed),
    )


def _width(a: Dictionary, on: On) -> int | None:
    """Dimensions of the space the cosine lives in; None for a mean of two."""
    if on == "decoder" or a.encoder_directions is None:
        return a.d_in
    return int(a.encoder_directions.shape[1]) if on == "encoder" else None


def _chance(n_candidates: int, width: int | None, signed: bool) -> float:
    if width is None or n_candidates < 1:
        return float("nan")
    return expected_max_cosine(n_candidates, width, absolute=not signed)


def with_mutual(forth: Matching, back: Matching) -> Matching:
    """`forth` with `mutual` set where `back` returns to the latent it came from."""
    there = forth.partner_row
    return replace(forth, mutual=(there >= 0) & (back.partner_row[there] == np.arange(len(there))))


def one_to_one_matching(
    nearest: Matching, reverse: Matching, method: MatchingName, partner_row: np.ndarray, cosine: np.ndarray
) -> Matching:
    """A one-to-one matching in one direction, from partner rows (−1 none) and signed cosines (nan none).

    `nearest` and `reverse` are the nearest matchings of this direction and the other.
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
