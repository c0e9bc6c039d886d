"""Recovery of known features: comparison of a dictionary with the true features of its training data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_geometry.comparisons.pair import compare_loaded
from sae_geometry.comparisons.pair_matchings import pair_operands
from sae_geometry.comparisons.pair_result import Comparison, ComparisonAnswer
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, or_dash, percent
from sae_geometry.io.progress import Progress
from sae_geometry.matching import match
from sae_geometry.matching.defaults import THRESHOLD, check_threshold
from sae_geometry.pairwise.inputs import distinct
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Recovery:
    """Precision, recall and F1 of a dictionary's latents against true features.

    Attributes:
        precision, recall: share of latents that match a feature, and share of features that match a latent.
        f1: harmonic mean of precision and recall; 0 if both are 0.
    """

    precision: float
    recall: float
    f1: float

    @staticmethod
    def of(latents: np.ndarray, features: np.ndarray) -> Recovery:
        """Return the recovery, given whether each latent, bool [n], and each feature, bool [m], has a counterpart."""
        precision, recall = float(latents.mean()), float(features.mean())
        total = precision + recall
        return Recovery(precision, recall, 2 * precision * recall / total if total else 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class GroundTruth(ComparisonAnswer):
    """Comparison of a dictionary with true features: precision, recall, F1, uniqueness and MCC.

    Only directions are compared. Testing whether latents *fire* as features do would need data.

    Attributes:
        comparison: the comparison of the dictionary (A) with the features (B), by nearest partners in both directions.
        threshold: similarity above which a latent and a feature match.
        mcc: mean correlation coefficient, the mean |cosine| of the optimal one-to-one matching (O'Neill et al. 2024).
    """

    comparison: Comparison
    threshold: float
    mcc: float

    @property
    def above(self) -> Recovery:
        """Return the recovery, counting nearest partners above the threshold as matches."""
        forth, back = self.comparison.nearest_a_to_b, self.comparison.nearest_b_to_a
        return Recovery.of(forth.similarity > self.threshold, back.similarity > self.threshold)

    @property
    def significant(self) -> Recovery:
        """Return the recovery, counting significant nearest partners (false discovery rate 5%) as matches."""
        return Recovery.of(self.comparison.nearest_a_to_b.significant, self.comparison.nearest_b_to_a.significant)

    @property
    def uniqueness(self) -> float:
        """Return the number of distinct nearest features per latent; 1 if no two latents share a feature."""
        forth = self.comparison.nearest_a_to_b
        return float((forth.multiplicity > 0).sum() / forth.n_latents)

    def summary(self) -> dict[str, Any]:
        """Return the recovery and the summary of the comparison as a JSON-ready dict."""
        return {
            "recovery_means": "precision is the share of latents, and recall the share of features, whose nearest "
            "partner is above the threshold (above_threshold) or significant (significant)",
            "threshold": self.threshold,
            **{name: asdict(r) for name, r in (("above_threshold", self.above), ("significant", self.significant))},
            "uniqueness": self.uniqueness,
            "mcc": self.mcc,
            **self.comparison.summary(),
        }

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: similarity."""
        from sae_geometry import plots

        c = self.comparison
        return {"similarity": plots.similarity_figure([c.nearest_a_to_b, c.nearest_b_to_a], threshold=self.threshold)}

    @property
    def method(self) -> str:
        return (
            f"{self.comparison.method} A latent and its nearest feature match if their similarity is above "
            f"{self.threshold:g}. MCC is the mean absolute cosine of the optimal one-to-one matching."
        )

    def _lines(self) -> list[str]:
        a, b = self.dictionaries
        of_both = self.comparison._lines()
        return [
            f"{shown(a.name, 60)!r} ({counted(a.n_latents, 'latent')}) against "
            f"{counted(b.n_latents, 'true feature')} ({shown(b.name, 60)!r})",
            f"  nearest > {self.threshold:g}: {_in_words(self.above)}",
            f"  significant: {_in_words(self.significant)}",
            f"  uniqueness {self.uniqueness:.3f}; MCC {or_dash(self.mcc, '.4f')}",
            *of_both[of_both.index("") + 1 :],
        ]

    def _definitions(self) -> list[str]:
        return [
            "  uniqueness: distinct nearest features per latent; MCC: mean |cosine| of the optimal one-to-one matching"
        ]

    @property
    def sentences(self) -> str:
        a, b = self.dictionaries
        return (
            f"Above a similarity of {self.threshold:g}, {percent(self.above.recall)} of "
            f"{counted(b.n_latents, 'true feature')} match a latent of {a.name}, and "
            f"{percent(self.above.precision)} of its {counted(a.n_latents, 'latent')} match a feature. The mean "
            f"|cosine| of the optimal one-to-one matching is {or_dash(self.mcc, '.3f')}."
        )


def _in_words(r: Recovery) -> str:
    return f"precision {r.precision:.3f}, recall {r.recall:.3f}, F1 {r.f1:.3f}"


def truth(
    a: Any,
    features: Any,
    *,
    threshold: float = THRESHOLD,
    signed: bool = True,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> GroundTruth:
    """Measure how well a dictionary recovers known features.

    Args:
        a: anything that `compare` takes.
        features: the true features, as a SAELens synthetic model or anything that `compare` takes, one feature per row.
        threshold: similarity above which a latent and a feature match.
        signed: False compares |cos|; the MCC always uses |cos|.
        allow_mismatch: permit different models or hook points; every output then says so.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: a threshold outside −1…1, different widths, or different spaces.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> features = np.eye(40, 64)
        >>> sg.truth(features[:30], features).above
        Recovery(precision=1.0, recall=0.75, f1=0.8571428571428571)
    """
    check_threshold(threshold)
    found, true = distinct([as_dictionary(a), as_dictionary(features)])
    made = compare_loaded(found, true, signed=signed, allow_mismatch=allow_mismatch, progress=progress)
    tick = None if progress is None else lambda step: progress(step.label, step.share)
    paired = match(*pair_operands(found, true, "decoder"), "optimal", absolute=True, progress=tick).completed()
    mcc = paired.total / paired.n_matched if paired.n_matched else math.nan
    return GroundTruth(made, threshold, mcc)
