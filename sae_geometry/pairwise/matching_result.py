"""Who is whose partner: one direction of a matching between two dictionaries, and the nearest one read off a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import read_only
from sae_geometry.kernels.types import Best
from sae_geometry.matching import On, operands
from sae_geometry.matching.defaults import DISCOVERY_RATE, MatchingName
from sae_geometry.nulls import NearestChance, PairedChance, false_discovery_found

if TYPE_CHECKING:
    import pandas as pd

THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
_NAMED = 4  # dictionaries that a caveat is told of one by one


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
        nearest_chance: what the nearest of m random directions would reach, whatever the method, on average and for
            each latent; worked out when first asked for.
        paired_chance: what this one-to-one matching gives on random dictionaries with the same moments; None for
            "nearest", and where it was not simulated.
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
    nearest_chance: NearestChance
    paired_chance: PairedChance | None = None
    paired_isotropic: PairedChance | None = None

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
    def isotropic_chance(self) -> float:
        """Mean similarity of the *nearest* of m isotropic random directions, in closed form; nan on "both"."""
        return self.nearest_chance.isotropic

    @property
    def matched_chance(self) -> float:
        """Mean similarity of the *nearest* of m random directions with the target's own mean and second moment.

        nan where the target fills fewer than four dimensions.
        """
        return self.nearest_chance.matched

    @property
    def chance(self) -> float:
        """Chance for this way of counting: `mmcs` of random directions with the same moments.

        For "nearest" `matched_chance`; for a one-to-one matching what it gives on random dictionaries of the same
        sizes and moments; nan where that was not simulated.
        """
        if self.method == "nearest":
            return self.matched_chance
        return float("nan") if self.paired_chance is None else self.paired_chance.mean_similarity

    @property
    def chance_text(self) -> str:
        """Chance for this way of counting, in a word.

        The value where it is known; an upper bound ("< 0.14") for a matching that pairs every source latent, none of
        which can do better than its nearest; "–" otherwise: a matching that picks its pairs beats any such bound.
        """
        if not np.isnan(self.chance):
            return f"{self.chance:.3f}"
        forced = self.method in ("greedy", "optimal") and self.n_matched == self.n_latents
        return f"< {self.matched_chance:.3f}" if forced and not np.isnan(self.matched_chance) else "–"

    @property
    def corrected(self) -> float:
        """(mmcs − chance) / (1 − chance): 0 is chance and 1 identity, whatever the widths of the two dictionaries.

        The correction for chance that kappa statistics make (Cohen 1960). nan where chance is unknown, or 1.
        """
        return (self.mmcs - self.chance) / (1 - self.chance) if self.chance < 1 else float("nan")

    @cached_property
    def p_value(self) -> np.ndarray:
        """float64 [n]: the probability that the nearest of m random directions comes as close as the partner did.

        Directions with the target's own mean and second moment; for a one-to-one partner, which may be farther than
        the nearest, p is conservative. nan without a partner, and where the target fills fewer than four dimensions.
        """
        return read_only(self.nearest_chance.p_values(self.similarity))

    @cached_property
    def found(self) -> np.ndarray:
        """bool [n]: partners closer than chance, the false discovery rate held at 5 % (Benjamini & Hochberg)."""
        return read_only(false_discovery_found(self.p_value, DISCOVERY_RATE))

    @property
    def found_fraction(self) -> float:
        """Share of *all* source latents that are `found`; nan where there are no p-values."""
        return float(self.found.mean()) if not np.isnan(self.p_value).all() else float("nan")

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

    def fraction_above_by_chance(self, threshold: float) -> float:
        """The same share for the nearest of m random directions with the target's own mean and second moment.

        For a one-to-one matching an upper bound: its partner is no closer than the nearest. nan where the target fills
        fewer than four dimensions.
        """
        return float(self.nearest_chance.share_above([threshold])[0])

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
        """One row a source latent: run, latent_id, partner_run, partner_id (−1 none), cosine, mutual, p_value, found,
        matching.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "run": self.source,
                "latent_id": self.source_ids,
                "partner_run": self.target,
                "partner_id": self.partner,
                "cosine": self.cosine,
                "mutual": self.mutual,
                "p_value": self.p_value,
                "found": self.found,
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
            "chance": self._chance_summary(),
        }

    def _chance_summary(self) -> dict[str, Any]:
        nearest, paired = self.nearest_chance, self.paired_chance
        return {
            "nearest_isotropic": nearest.isotropic,
            "nearest_covariance_matched": nearest.matched,
            "nearest_candidates": nearest.n_candidates,
            "dimensions_filled_by_target": nearest.null.dimensions,
            "covariance_shrinkage_of_target": nearest.null.shrinkage,
            "one_to_one_covariance_matched": None if paired is None else asdict(paired),
            "one_to_one_isotropic": None if self.paired_isotropic is None else asdict(self.paired_isotropic),
            "mean_corrected_for_chance": self.corrected,
            "nearest_fraction_of_source_above": {
                f"{t}": float(share) for t, share in zip(THRESHOLDS, nearest.share_above(THRESHOLDS), strict=True)
            },
            "found": {
                "means": "closer than the nearest random direction with the target's mean and second moment",
                "false_discovery_rate": DISCOVERY_RATE,
                "n": int(self.found.sum()),
                "fraction_of_source": self.found_fraction,
            },
        }

    def __repr__(self) -> str:
        return (
            f"Matching {self.source} → {self.target}, {self.method} ({self.quantity}): mean {self.mmcs:.4f} over "
            f"{self.n_matched:,} of {self.n_latents:,}; {self.fraction_above(0.7):.1%} above 0.7; "
            f"chance {self.chance_text}"
        )


def few_latents(dictionaries: Sequence[Dictionary], on: On = "decoder") -> tuple[str, ...]:
    """A caveat for each dictionary of fewer latents than compared dimensions, whose covariance they do not settle.

    With `on="both"` a latent is its decoder and encoder direction side by side, and these dimensions add up. Of many
    such dictionaries the caveat names the first, and counts them.
    """
    so = [d for d in dictionaries if d.n_latents < _width(d, on)]
    sides = {"decoder": "", "encoder": " of its encoder", "both": " of its decoder and encoder"}
    few = [
        f"fewer latents ({d.n_latents:,}) than dimensions{sides[on] if _width(d, on) != d.d_in else ''} "
        f"({_width(d, on):,})"
        for d in so
    ]
    if len(so) > _NAMED:
        few = [f"{few[0]}, and so are {len(so) - 1:,} more of the {len(dictionaries):,} runs"]
    effect = "chance against it is estimated from few, and p-values come out too small where latents crowd"
    return tuple(f"{d.name}: {told}: {effect}" for d, told in zip(so, few, strict=False))


def _width(d: Dictionary, on: On) -> int:
    encoder = 0 if d.encoder_directions is None else d.encoder_directions.shape[1]
    return {"decoder": d.d_in, "encoder": encoder, "both": d.d_in + encoder}[on]


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
        nearest_chance=_nearest_chance(a, b, on, absolute=not signed, within=within),
    )


def _nearest_chance(a: Dictionary, b: Dictionary, on: On, *, absolute: bool, within: bool) -> NearestChance:
    x, y = operands((a.directions, a.encoder_directions), (b.directions, b.encoder_directions), on)
    source = x.cpu().numpy()
    return NearestChance(
        source=source * np.float32(np.sqrt(2)) if on == "both" else source,  # of "both", A's rows are halved
        target=y.cpu().numpy(),
        n_candidates=b.n_latents - within,
        absolute=absolute,
        isotropic_dimensions=None if on == "both" else x.shape[1],
        within=within,
        target_key=partial(_key, b, on),
    )


def _key(d: Dictionary, on: On) -> tuple[str, On]:
    """What the rows that are compared of a dictionary are known by."""
    return d.fingerprint, on


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
