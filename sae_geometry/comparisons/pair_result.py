"""Result of comparing two dictionaries: numbers, tables, figures and text for both directions and any matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_geometry.comparisons import pair_words
from sae_geometry.comparisons.inference import interval_over_latents
from sae_geometry.comparisons.pair_matchings import PairMatchings
from sae_geometry.comparisons.strata import strata, strata_lines
from sae_geometry.dictionary import Dictionary
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.pairwise.certainty import forced_words
from sae_geometry.pairwise.confounds import ConfoundAudit, confound_audit
from sae_geometry.pairwise.inputs import activity, describe_input
from sae_geometry.pairwise.label_columns import labeled_list, labeled_table
from sae_geometry.pairwise.mapping import plain_cosines
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer, PairAnswer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(PairMatchings, PairAnswer):
    """Comparison of two dictionaries in both directions under one matching, with the nearest neighbors.

    Attributes:
        a, b: the dictionaries.
        matching, on, signed: method, compared directions ("decoder", "encoder", "both"), and whether similarity is
            the cosine or its absolute value.
        a_to_b, b_to_a: the requested matching, in both directions.
        nearest_a_to_b, nearest_b_to_a: the nearest partners, double counting allowed (the same objects if "nearest"
            is the requested matching).
        caveats: allowed mismatches and unknown spaces.
        assignment: the one-to-one matching with its certificate; None for "nearest".
        swept: the underlying sweep.
        control_sweeps: the sweeps of A against the turned B.
        limits: minimum similarity and stopping rule of an optimal matching.
        turns: number of one-to-one matchings with the turned B, for the null expectation.
        threshold: similarity above which a one-to-one pair is shared.
        made: cached matchings of the same sweep.
        certainty: the margins of the pairs of the requested matching, A → B and B → A.
        min_margin: margin below which pairs were left out; None if no pairs were.
        against_control: the comparisons of A and of B with the control dictionary; None if there is no control.
    """

    @cached_property
    def confounds(self) -> ConfoundAudit:
        """Return the confound audit of the two dictionaries, to be read before the results."""
        return confound_audit(self.a, self.b)

    @property
    def meaning(self) -> str:
        """Describe the matching and, if an optimal matching stopped early, its certified gap."""
        if self._early_stop is not None:
            return f"best one-to-one matching found, {self._early_stop}"
        return "; ".join([methods.MEANING[self.matching], *self._limits_in_words])

    @property
    def _early_stop(self) -> str | None:
        """Describe why an optimal matching stopped early; None if it is certified or has no certificate."""
        certificate = None if self.assignment is None else self.assignment.certificate
        if certificate is None or certificate.certified:
            return None
        return (
            f"stopped ({certificate.stopped}) within a relative gap of {certificate.relative_gap:.2g} of the largest "
            "total similarity"
        )

    @property
    def _limits_in_words(self) -> list[str]:
        """Return the limits under which the one-to-one matching was computed, in words; empty if there are none."""
        said = [] if self._early_stop is None else [self._early_stop]
        if self.limits.min_similarity is not None:
            said.append(f"no pair below {self.limits.min_similarity:g} was matched")
        if self.min_margin is not None:
            said.append(methods.MARGIN.format(self.min_margin))
        return said

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent and direction, with its nearest and its one-to-one partner.

        Columns: direction ("a_to_b", "b_to_a"), run, latent_id, partner_run, partner_id, cosine, mutual, q_value,
        significant, margin, margin_of_partner, one_to_one_partner_id, one_to_one_cosine, one_to_one_matching,
        one_to_one_margin (the smaller of both), one_to_one_loss_if_forbidden (nan unless optimal; see
        `matching.loss_if_forbidden`), alive and frequency (null where unknown). After a linear map of one space, the
        column plain_cosine is the cosine to the nearest before the map. `c.a_to_b.to_pandas()` has one direction, under
        the requested matching. Labels follow if there are any: see `pairwise.label_columns.labeled_table`.
        """
        return labeled_table(self._matches(), self.dictionaries)

    def _matches(self) -> pd.DataFrame:
        """Return the table of `to_pandas` without labels."""
        paired, every = self.one_to_one(), self if self.matching == "nearest" else self.rematch("nearest")
        frames = []
        sides = (("a_to_b", self.a, self.b), ("b_to_a", self.b, self.a))
        for at, (direction, d, other) in enumerate(sides):
            nearest, single = getattr(every, direction), getattr(paired, direction)
            frame = nearest.to_pandas().drop(columns="matching")
            frame.insert(0, "direction", direction)
            plain = plain_cosines(d, other, nearest.source_ids, nearest.partner)
            if plain is not None:
                frame.insert(list(frame.columns).index("cosine") + 1, "plain_cosine", plain)
            frame["margin"] = every.certainty[at].margin
            frame["margin_of_partner"] = every.certainty[at].margin_of_partner
            frame["one_to_one_partner_id"] = single.partner
            frame["one_to_one_cosine"] = single.cosine
            frame["one_to_one_matching"] = single.method
            frame["one_to_one_margin"] = paired.certainty[at].least
            frame["one_to_one_loss_if_forbidden"] = paired._losses_if_forbidden[at]
            frames.append(frame.assign(**activity(d)))
        return pd.concat(frames, ignore_index=True)

    @property
    def shared(self) -> pd.DataFrame:
        """Return the one-to-one pairs above the threshold, most similar first.

        Columns: a_id, b_id, cosine, q_value (the larger of both directions), mutual; label and partner_label if
        there are labels.
        """
        return self._lists["shared"].copy()

    def _shared(self) -> pd.DataFrame:
        there, here = self._paired
        rows = np.flatnonzero(there.similarity > self.threshold)
        rows = rows[np.argsort(-there.similarity[rows], kind="stable")]
        cols = there.partner_row[rows]
        return pd.DataFrame(
            {
                "a_id": there.source_ids[rows],
                "b_id": there.partner[rows],
                "cosine": there.cosine[rows],
                "q_value": np.maximum(there.q_value[rows], here.q_value[cols]),
                "mutual": there.mutual[rows],
            }
        )

    @property
    def only_a(self) -> pd.DataFrame:
        """Return A's latents without a one-to-one partner above the threshold, those least similar to B first.

        Columns: latent_id, nearest_id and nearest_cosine in the other dictionary, q_value of the nearest,
        one_to_one_cosine (nan if there is no partner), frequency; label and nearest_label if there are labels.
        """
        return self._lists["only-a"].copy()

    @property
    def only_b(self) -> pd.DataFrame:
        """Return B's latents without a one-to-one partner above the threshold; see `only_a`."""
        return self._lists["only-b"].copy()

    def _only(self, d: Dictionary, nearest: Matching, paired: Matching) -> pd.DataFrame:
        rows = np.flatnonzero(~(paired.similarity > self.threshold))
        rows = rows[np.argsort(nearest.similarity[rows], kind="stable")]
        return pd.DataFrame(
            {
                "latent_id": nearest.source_ids[rows],
                "nearest_id": nearest.partner[rows],
                "nearest_cosine": nearest.cosine[rows],
                "q_value": nearest.q_value[rows],
                "one_to_one_cosine": paired.cosine[rows],
                "frequency": activity(d)["frequency"][rows],
            }
        )

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: matches."""
        return {"matches": self._matches()}

    def lists(self) -> Mapping[str, pd.DataFrame]:
        """Return the lists of shared pairs and of latents without a partner: shared, only-a, only-b."""
        return self._lists

    @cached_property
    def _lists(self) -> dict[str, pd.DataFrame]:
        a, b, paired = self.a, self.b, self.one_to_one()
        return {
            "shared": labeled_list(self._shared(), [a, b]),
            "only-a": labeled_list(self._only(a, self.nearest_a_to_b, paired.a_to_b), [b, a]),
            "only-b": labeled_list(self._only(b, self.nearest_b_to_a, paired.b_to_a), [a, b]),
        }

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of the most similar pairs, of pairs in between, and of latents without a partner."""
        table = pd.concat([self.a_to_b.to_pandas(), self.b_to_a.to_pandas()])
        return pair_labels(table, self.dictionaries, signed=self.signed, threshold=self.threshold)

    def figures(self) -> Mapping[str, Figure]:
        """Return the figures to save: partners, similarity, multiplicity, certainty and, if cheap, double_counting."""
        from sae_geometry import plots

        paired = self.one_to_one()
        certain = [(paired.a_to_b, paired.certainty[0].least), (paired.b_to_a, paired.certainty[1].least)]
        found = {
            "partners": plots.figure_of(
                lambda ax: plots.partners_histogram(self.nearest_a_to_b, ax, threshold=self.threshold), 3.6, 2.9
            ),
            "similarity": plots.similarity_figure(self._curves(), threshold=self.threshold),
            "multiplicity": plots.figure_of(self.plot_multiplicity, 3.6, 3.4),
            "certainty": plots.figure_of(
                lambda ax: plots.certainty_curve(certain, ax, threshold=self.threshold), 3.6, 2.8
            ),
        }
        if self._counts_cheaply:
            found["double_counting"] = plots.figure_of(self.plot_double_counting, 3.8, 2.7)
        return found

    def _strata(self) -> pd.DataFrame:
        """Return the strata of both directions: a `direction` column, followed by the columns of `strata.strata`."""
        paired, frames = self.one_to_one(), []
        sides = (("a_to_b", self.a, self.a_to_b, paired.a_to_b), ("b_to_a", self.b, self.b_to_a, paired.b_to_a))
        for direction, source, m, there in sides:
            frame = strata(source, m, there, self.threshold)
            frame.insert(0, "direction", direction)
            frames.append(frame)
        return pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Return the inputs, matching, both directions, caveats and sweep report as a JSON-ready dict."""
        out: dict[str, Any] = {
            "inputs": {"a": describe_input(self.a), "b": describe_input(self.b)},
            "confounds": self.confounds.summary(),
            "matching": self.matching,
            "matching_means": self.meaning,
            "limits": asdict(self.limits),
            "threshold": self.threshold,
            "similarity": self.a_to_b.quantity,
            "a_to_b": self.a_to_b.summary() | {"interval": self._interval(self.a_to_b)},
            "b_to_a": self.b_to_a.summary() | {"interval": self._interval(self.b_to_a)},
            "strata": self._strata().to_dict("records"),
            "hints": pair_words.hints(self),
            **label_summary(self.meanings),
            "caveats": list(self.caveats),
            "sweep": asdict(self.swept.report),
        }
        if (plain := pair_words.plain_means(self)) is not None:
            out["mean_cosine_of_nearest_before_the_map"] = dict(zip(("a_to_b", "b_to_a"), plain, strict=True))
        if self.matching != "nearest":
            out["nearest"] = {"a_to_b": self.nearest_a_to_b.summary(), "b_to_a": self.nearest_b_to_a.summary()}
            out["certificate"] = self.certificate()
        else:
            paired = self.one_to_one()
            out["one_to_one"] = {
                "matching": paired.matching,
                "a_to_b": paired.a_to_b.summary(),
                "b_to_a": paired.b_to_a.summary(),
                "certificate": paired.certificate(),
            }
        if self.against_control is not None:
            of_a, of_b = self.against_control
            out["control"] = {
                "input": describe_input(of_a.b),
                "a_to_control": of_a.a_to_b.summary(),
                "b_to_control": of_b.a_to_b.summary(),
            }
        if self._counts_cheaply:
            out["double_counting"] = self.double_counting().summary()
        return out

    def _interval(self, m: Matching) -> dict[str, Any] | None:
        """Return the interval of the mean similarity over latents; None if there are fewer than two pairs."""
        return asdict(interval_over_latents(m.similarity)) if m.n_matched > 1 else None

    def plot_ecdf(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw the ECDFs of nearest and one-to-one similarity in both directions, with the null expectations."""
        from sae_geometry import plots

        return plots.similarity_ecdf(self._curves(), ax=ax, threshold=self.threshold, legend=legend)

    def plot_histogram(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw histograms of the similarities in `plot_ecdf`, over shared bins."""
        from sae_geometry import plots

        return plots.similarity_histogram(self._curves(), ax=ax, threshold=self.threshold, legend=legend)

    def plot_multiplicity(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw how many target latents are the nearest partner of 0, 1, 2, … latents, in both directions."""
        from sae_geometry import plots

        return plots.multiplicity_bars(self._nearest, ax=ax, legend=legend)

    def plot_double_counting(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw the mean similarity and the number of pairs of each matching, with the null expectation."""
        from sae_geometry import plots

        return plots.counting_bars(self.double_counting(), self.nearest_a_to_b, ax=ax, legend=legend)

    def _curves(self) -> list[Matching]:
        return [*self._nearest, *self._paired]

    @property
    def headline(self) -> str:
        """Return the line that states how many latents have a one-to-one partner above the threshold."""
        return pair_words.headline(self)

    @property
    def sentences(self) -> str:
        return pair_words.sentences(self)

    @property
    def method(self) -> str:
        paired = self.one_to_one()
        certificate = None if paired.assignment is None else paired.assignment.certificate
        gap = None if certificate is None or certificate.certified else certificate.relative_gap
        turns = self.turns if paired.a_to_b.expected_pairs is not None else None
        limits = ""
        if self.min_margin is not None:
            least = f"{self.min_margin:g}"
            limits = f" Pairs less than {least} above either latent's best other candidate were left out."
        if paired.limits.min_similarity is not None:
            limits += f" No pair below {paired.limits.min_similarity:g} was matched."
        control = ""
        if self.against_control is not None:
            control = f" As a control, both were compared in the same way with {self.against_control[0].b.name}."
        return (
            f"We compared {self.a.name} and {self.b.name} by {methods.measure(self.on, self.signed)}. {methods.EXACT} "
            f"{methods.matched('nearest')} {methods.matched(paired.matching, gap)}{limits} A one-to-one pair above "
            f"{self.threshold:g} counts as shared. {methods.by_chance(self.b.name, turns)} "
            f"{methods.OWN_AND_TURNED}{control}"
        )

    def _lines(self) -> list[str]:
        lines = pair_words.first_screen(self)
        said = [*(f"one to one: {text}" for text in self._limits_in_words), *pair_words.hints(self)]
        at = lines.index("")
        lines[at:at] = [f"  {text}" for text in said]
        return lines if self.against_control is None else [*lines, *pair_words.control_lines(self.against_control)]

    def details(self) -> str:
        """Return the full report: the printed summary, the confound audit, and every result with its definition."""
        about = f"matching: {self.matching} — {self.meaning}; similarity: {self.a_to_b.quantity}"
        parts = [repr(self), str(self.confounds), about, *pair_words.details(self)]
        paired = self.one_to_one()
        parts += forced_words(paired.a_to_b, paired.certainty[0])
        strata, above = self._strata(), f"> {self.threshold:g}"
        heads = {"shared": f"one to one {above}", "above": f"{self.matching} {above}", "significant": "significant"}
        heads["mean"] = f"mean {self.matching}"
        for direction, name in (("a_to_b", self.a.name), ("b_to_a", self.b.name)):
            lines = strata_lines(strata[strata["direction"] == direction], heads)
            parts += [f"  {name}, by firing frequency:", *(f"    {line}" for line in lines)] if lines else []
        if self._counts_cheaply:
            parts.append(str(self.double_counting()))
        return "\n".join(parts)


class ComparisonAnswer(Answer):
    """Base class of results that extend a `Comparison`."""

    comparison: Comparison

    @property
    def dictionaries(self) -> tuple[Dictionary, Dictionary]:
        return self.comparison.dictionaries

    @property
    def caveats(self) -> tuple[str, ...]:
        return self.comparison.caveats

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: matches."""
        return self.comparison.tables()
