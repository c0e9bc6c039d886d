"""Within-dictionary similarity: the redundancy and the coherence of one dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_geometry.comparisons.coherence import Coherence, coherence
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, or_dash, percent
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.kernels.types import Sweep
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.matching.defaults import THRESHOLD, check_threshold
from sae_geometry.nulls import LISTED, How, turned_controls
from sae_geometry.pairwise.inputs import activity, describe_input
from sae_geometry.pairwise.label_columns import labeled_table
from sae_geometry.pairwise.matching_result import Matching, nearest_matching, with_mutual
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class WithinComparison(Answer):
    """Within-dictionary similarity: for each latent, the nearest *other* latent (self excluded by index).

    Attributes:
        dictionary: the dictionary.
        signed: whether similarity is the cosine or its absolute value.
        nearest: the `Matching` of the dictionary to itself.
        swept: the underlying sweep.
        coherence: cumulative coherence, mean |cosine| and spectrum.
        threshold: similarity above which two latents count as alike.
    """

    dictionary: Dictionary
    signed: bool
    nearest: Matching
    swept: Sweep
    coherence: Coherence
    threshold: float = THRESHOLD

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return the notes on the dictionary and the doubts about the controls."""
        return (*self.dictionary.notes, *self.nearest.doubts)

    @property
    def mmcs(self) -> float:
        """Return the mean over i of max over j ≠ i of cos(a_i, a_j)."""
        return self.nearest.mmcs

    @property
    def dictionaries(self) -> tuple[Dictionary]:
        return (self.dictionary,)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent: the columns of `Matching.to_pandas` except matching, then alive and frequency.

        The last two are null if unknown. Labels follow if there are any: see `pairwise.label_columns.labeled_table`.
        """
        return labeled_table(self._matches(), self.dictionaries)

    def _matches(self) -> pd.DataFrame:
        """Return the table of `to_pandas` without labels."""
        return self.nearest.to_pandas().drop(columns="matching").assign(**activity(self.dictionary))

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: matches."""
        return {"matches": self._matches()}

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels by similarity to the nearest: above the threshold, at or below chance, or in between."""
        names, m = ("most alike", "in between", "below chance"), self.nearest
        groups = np.where(m.similarity > self.threshold, names[0], np.where(m.similarity > m.chance, *names[1:]))
        return pair_labels(m.to_pandas(), self.dictionaries, groups=groups, names=names)

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: within."""
        from sae_geometry import plots

        return {"within": plots.similarity_figure([self.nearest], threshold=self.threshold)}

    def summary(self) -> dict[str, Any]:
        """Return the similarities, coherence and caveats as a JSON-ready dict."""
        return {
            "inputs": {"a": describe_input(self.dictionary)},
            "self": "excluded by index",
            "similarity": self.nearest.quantity,
            "threshold": self.threshold,
            "fraction_above_threshold": self.nearest.fraction_above(self.threshold),
            "within": self.nearest.summary(),
            "coherence": self.coherence.summary(),
            **label_summary(self.meanings),
            "caveats": list(self.caveats),
            "sweep": asdict(self.swept.report),
        }

    def plot_ecdf(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw the ECDF of the within-dictionary max cosine, with the null expectation."""
        from sae_geometry import plots

        return plots.similarity_ecdf([self.nearest], ax=ax, threshold=self.threshold, legend=legend)

    def plot_histogram(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw a histogram of the within-dictionary max cosine."""
        from sae_geometry import plots

        return plots.similarity_histogram([self.nearest], ax=ax, threshold=self.threshold, legend=legend)

    @property
    def method(self) -> str:
        name = self.dictionary.name
        return " ".join(
            [
                f"We compared the latents of {name} with each other by {methods.measure('decoder', self.signed)}: each "
                "with its nearest other latent (the latent itself is excluded by index).",
                methods.EXACT,
                methods.by_chance(name),
                methods.significant(f"the nearest latent of the turned {name}"),
            ]
        )

    def _lines(self) -> list[str]:
        m, d = self.nearest, self.dictionary
        return [
            f"Within {shown(d.name, 60)!r}: {counted(d.n_latents, 'latent')} × {d.d_in:,}, nearest other by "
            f"{m.quantity}",
            f"  mean {or_dash(m.mmcs, '.4f')}   by chance {or_dash(m.chance, '.3f')}   above {self.threshold:g}: "
            f"{percent(m.fraction_above(self.threshold))}",
            *(f"  {line}" for line in self.coherence.lines()),
        ]

    def _definitions(self) -> list[str]:
        return [
            "  self excluded by index; by chance: against the turned dictionary; isotropic directions would give "
            f"{or_dash(self.nearest.isotropic_chance, '.3f')}",
            f"  {self.dictionary.alive.describe()}",
        ]

    @property
    def sentences(self) -> str:
        m = self.nearest
        return (
            f"The mean {m.quantity} of a latent of {self.dictionary.name} to its nearest other latent is "
            f"{or_dash(m.mmcs, '.3f')}; {or_dash(m.chance, '.3f')} would be expected by chance. "
            f"{percent(m.fraction_above(self.threshold))} of latents have another latent above {self.threshold:g}."
        )


def within(
    a: Any, *, signed: bool = True, threshold: float = THRESHOLD, progress: Progress | None = None
) -> WithinComparison:
    """Compute max over j ≠ i of cos(a_i, a_j) for every latent i, and the coherence and spectrum of the dictionary.

    Args:
        a: anything `compare` takes.
        signed: False uses |cos|.
        threshold: similarity above which two latents count as alike.
        progress: called with the current step and its completed fraction, in [0, 1].

    Returns:
        WithinComparison. If there is only one latent, it has no partner: similarity nan, partner −1.

    Example:
        >>> import sae_geometry as sg
        >>> sg.within("demo:local-narrow-seed0").nearest.n_matched
        512
    """
    check_threshold(threshold)
    d = as_dictionary(a)
    tick = None if progress is None else lambda share: progress("similarities", share)
    # Coherence runs first: its lists are longer, so a memory limit that is too low raises before the sweep.
    spread = coherence(d.directions, progress)
    swept = listing_sweep(d.directions, None, LISTED, absolute=not signed, progress=tick)
    both = replace(swept, cols=swept.rows)
    controls, _ = turned_controls(d.directions, d.directions, both, How(not signed), progress)
    nearest = nearest_matching(d, d, swept.rows, controls, signed=signed)
    nearest = with_mutual(nearest, nearest)
    return WithinComparison(d, signed, nearest, swept, spread, threshold)
