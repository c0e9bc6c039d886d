"""Result of comparing many runs: consensus, rarefaction, intervals, and the printed report."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sae_geometry.comparisons import inference, seeds_words
from sae_geometry.comparisons.consensus import Consensus, consensus, consensus_labels
from sae_geometry.comparisons.inference import LEVEL, Interval, KindDifference
from sae_geometry.comparisons.rarefaction import Rarefaction, rarefaction
from sae_geometry.comparisons.seeds_matrices import SeedMatrices
from sae_geometry.comparisons.strata import strata_lines
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import counted, ends, known_mean, percent, wrap
from sae_geometry.labels.pairs import PairLabels, label_summary
from sae_geometry.pairwise.confounds import runs_table
from sae_geometry.pairwise.grouping import kind_of, layer_of, seed_of
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.pairwise.pair_record import N_BINS
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer
from sae_geometry.results.warnings import WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INDENTED: Any = {"width": WIDTH, "initial_indent": "  ", "subsequent_indent": "    ", "placeholder": " …"}
_LISTED = 100  # maximum number of runs for which the summary contains matrices


@dataclass(frozen=True, eq=False, repr=False)
class SeedComparison(SeedMatrices, Answer):
    """Pairwise comparison of N runs: the matrices of `SeedMatrices`, with consensus, rarefaction and intervals."""

    @cached_property
    def consensus(self) -> Consensus:
        """Return the consensus groups of the runs: see `Consensus`.

        One-to-one partners of two runs are linked above the threshold, or above a lower level if the two runs' own
        latents are less similar than that (see `explained_up_to`): with the threshold alone, a latent that some runs
        recover with more noise than others would be split in two.
        """
        level = np.full((self.n_runs, self.n_runs), self.threshold)
        for (i, j), pair in self.pairs.items():
            level[i, j] = level[j, i] = min(self.threshold, pair.explained)
        return consensus(self.runs, *self._partners, threshold=level)

    @cached_property
    def rarefaction(self) -> Rarefaction:
        """Return the number of distinct latents against the number of runs: see `Rarefaction`."""
        return rarefaction(self.consensus.incidence, refusal=self._unlike())

    def interval(self, group: str, what: str = "mmcs") -> Interval:
        """Return the mean over ordered pairs of runs within one group, with its interval.

        The interval is over runs if the group has at least three runs. With two runs, it is over the latents of the one
        pair, which says nothing about other seeds (there is none for "significant", nor for a single latent), and
        shares have Wilson's interval: pairs above the threshold out of the largest possible number.

        Args:
            group: one of `groups`.
            what: the matrix: "mmcs", "shared", "paired" or "significant".

        Raises:
            ValueError: a group with fewer than two runs, or an unknown matrix.
        """
        matrix = self._matrix(what)
        members = [at for at, g in enumerate(self.groups) if g == group]
        if len(members) < 2:
            raise ValueError(f"{group!r} has {counted(len(members), 'run')}; a mean over pairs needs at least two")
        if len(members) > 2:
            of = sum(self.runs[at].n_latents for at in members) if what in ("shared", "significant") else None
            names = [self.names[at] for at in members]
            return inference.interval_over_runs(matrix[np.ix_(members, members)], latents=of, names=names)
        i, j = members
        pair = self.pairs[i, j]
        if what == "mmcs":
            return inference.interval_both_ways(pair.mmcs, *_spread(pair.histogram))
        if what == "paired" and (~np.isnan(pair.similarity)).sum() > 1:
            return inference.interval_over_latents(pair.similarity)
        mean = float((matrix[i, j] + matrix[j, i]) / 2)
        if what in ("significant", "paired"):
            return Interval(mean, math.nan, math.nan, LEVEL, "latents of one pair", len(pair.similarity), math.nan)
        most = min(self.runs[i].n_latents, self.runs[j].n_latents)
        own = inference.interval_of_share(int(np.sum(pair.similarity > self.threshold)), most)
        ratio = (most / self.runs[i].n_latents + most / self.runs[j].n_latents) / 2
        return replace(
            own, mean=mean, low=own.low * ratio, high=own.high * ratio, standard_error=own.standard_error * ratio
        )

    def difference(self, first: str, second: str, what: str = "mmcs") -> KindDifference:
        """Test whether runs of one group are more similar to each other than runs of another.

        Args:
            first, second: two of `groups`.
            what: as in `interval`.
        """
        return inference.kind_difference(self._matrix(what), self.groups, first, second)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per ordered pair of runs.

        Columns: source, target, kind, layer, seed and group of each; mmcs, chance, chance_isotropic, own,
        chance_adjusted, significant, beyond_controls, nearest_above, nearest_above_chance, shared, shared_by_both,
        same_partner, paired, paired_chance, matching, n_source, n_target, confounds (flagged checks, one word each).
        """
        i, j = np.nonzero(~np.eye(self.n_runs, dtype=bool))
        known: dict[str, Any] = {
            "": self.names,
            "_kind": [kind_of(d) for d in self.runs],
            "_layer": pd.array([layer_of(d) for d in self.runs], dtype="Int64"),
            "_seed": [None if (s := seed_of(d)) is None else str(s) for d in self.runs],
            "_group": self.groups,
        }
        facts = {key: pd.Series(values) for key, values in known.items()}
        n = np.array([d.n_latents for d in self.runs])
        above, by_chance = self._directed("nearest_above"), self._directed("nearest_above_chance")
        room = np.where(self.chance < 1, 1 - self.chance, np.nan)
        checks = np.full((self.n_runs, self.n_runs), "", dtype=object)
        for (x, y), pair in self.pairs.items():
            checks[x, y] = checks[y, x] = "; ".join(text.partition(": ")[0] for text in pair.confounds)
        return pd.DataFrame(
            {
                "source": facts[""].take(i).array,
                "target": facts[""].take(j).array,
                **{f"source{key}": facts[key].take(i).array for key in list(facts)[1:]},
                **{f"target{key}": facts[key].take(j).array for key in list(facts)[1:]},
                "mmcs": self.mmcs[i, j],
                "chance": self.chance[i, j],
                "chance_isotropic": self.isotropic_chance[i, j],
                "own": self.own[i, j],
                "chance_adjusted": ((self.mmcs - self.chance) / room)[i, j],
                "significant": self.significant[i, j],
                "beyond_controls": self.beyond[i, j],
                "nearest_above": above[i, j],
                "nearest_above_chance": by_chance[i, j],
                "shared": self.shared[i, j],
                "shared_by_both": self.shared_by_both[i, j],
                "same_partner": self.same_partner[i, j],
                "paired": self.paired[i, j],
                "paired_chance": self.paired_chance[i, j],
                "matching": self.matching,
                "n_source": n[i],
                "n_target": n[j],
                "confounds": checks[i, j],
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the matrices (up to 100 runs), intervals, consensus, rarefaction and caveats as a JSON-ready dict."""
        return {
            "inputs": {f"{k}": describe_input(d) for k, d in enumerate(self.runs)},
            "similarity": self._similarity,
            "one_to_one_matching": self.matching,
            "threshold": self.threshold,
            "runs": self.names,
            "groups": self.groups,
            "kinds": [kind_of(d) for d in self.runs],
            "layers": [layer_of(d) for d in self.runs],
            "hook_points": [d.hook_point for d in self.runs],
            "seeds": [seed_of(d) for d in self.runs],
            "rows_are": "the source runs; columns are the target runs",
            **({} if self.n_runs <= _LISTED else {"matrices": f"left out above {_LISTED} runs: see pairs.parquet"}),
            "mmcs": self._listed(self.mmcs),
            "mmcs_chance": self._listed(self.chance),
            "mmcs_own": self._listed(self.own),
            "mmcs_chance_isotropic": self._listed(self.isotropic_chance),
            "significant": self._listed(self.significant),
            "beyond_controls_at_least": self._listed(self.beyond),
            "shared": self._listed(self.shared),
            "shared_by_chance_at_most": self._listed(self.shared_chance),
            "shared_by_decoder_and_encoder": self._listed(self.shared_by_both),
            "same_partner_by_decoder_and_encoder": self._listed(self.same_partner),
            "paired_means": f"{self.paired_name}: mean similarity of the {self.matching} one-to-one pairs",
            "paired": self._listed(self.paired),
            "paired_chance": self._listed(self.paired_chance),
            "recurrence_means": "number of latents of each run found (one-to-one similarity above the threshold) "
            "in exactly 0, 1, … other runs",
            "recurrence": self.recurrence.tolist(),
            "recurrence_shares": self.recurrence_shares.tolist(),
            "within_groups": {
                group: {what: asdict(self.interval(group, what)) for what in ("mmcs", "shared", "paired")}
                for group in self._groups_of_two
            },
            "between_groups": [asdict(d) for d in self._differences],
            "strata": self._strata().to_dict("records"),
            **label_summary(self.meanings),
            "consensus": {
                "means": "cycle-consistent groups: every two members are one-to-one partners above the threshold, or "
                "above a lower level if the two runs' own latents are less similar than that",
                "groups": len(self.consensus.members),
                "found_by_exactly": self.consensus.incidence.tolist(),
                "orphans": [len(o) for o in self.consensus.orphans],
            },
            "rarefaction": self.rarefaction.summary(),
            "confounds": self._confounds_summary(),
            "caveats": list(self.caveats),
        }

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the tables to save: pairs (one row per ordered pair), consensus, orphans."""
        return {"pairs": self.to_pandas(), "consensus": self.consensus.to_pandas(), "orphans": self._orphans()}

    def _orphans(self) -> pd.DataFrame:
        """Return the table of orphans, with the number of other runs in which their nearest latent is significant."""
        table = self.consensus.orphans_table()
        counts = [
            count[np.isin(run.latent_ids.cpu().numpy(), left)]
            for run, count, left in zip(self.runs, self.significant_in, self.consensus.orphans, strict=True)
        ]
        return table.assign(significant_in=np.concatenate(counts))

    def write_extra(self, folder: Path) -> None:
        """Write consensus.safetensors, if there are consensus groups."""
        if len(self.consensus.members):
            self.consensus.save(folder / "consensus.safetensors")

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of latents found in every run, in several runs, and in only one run."""
        return consensus_labels(self.consensus)

    def figures(self) -> Mapping[str, Figure]:
        """Return the figures to save: matrices, ridgeline, recurrence."""
        from sae_geometry import plots

        return {
            "matrices": plots.seeds_figure(self),
            "ridgeline": plots.ridgeline_figure(self),
            "recurrence": plots.recurrence_figure(self),
        }

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        return self.runs

    @property
    def _groups_of_two(self) -> list[str]:
        return [g for g in dict.fromkeys(self.groups) if self.groups.count(g) > 1]

    @cached_property
    def _differences(self) -> list[KindDifference]:
        groups = list(dict.fromkeys(self.groups))
        return [self.difference(a, b) for a, b in itertools.combinations(groups, 2)]

    @property
    def method(self) -> str:
        return (
            f"We compared every pair of {counted(self.n_runs, 'run')} by {methods.measure(self.on, self.signed)}. "
            f"{methods.EXACT} {methods.matched('nearest')} {methods.matched(self.matching)} A latent is found in "
            f"another run if the similarity to its one-to-one partner there is above {self.threshold:g}. A consensus "
            "group is a set of latents of different runs that are all partners of each other. "
            f"{methods.by_chance('the other run')} {methods.OWN_AND_TURNED}"
        )

    @property
    def sentences(self) -> str:
        shared, chance = (known_mean(x) for x in (self.shared, self.shared_chance))
        found = self.consensus.incidence
        return (
            f"{found[-1]:,} of {counted(found.sum(), 'distinct latent')} are found in all {len(found)} runs, and "
            f"{found[0]:,} in only one. On average, {percent(shared)} of a run's latents have a one-to-one partner "
            f"above {self.threshold:g} in another run; {percent(chance)} would be expected by chance."
        )

    @property
    def headline(self) -> str:
        """Return the line that states how many latents are found in all runs."""
        return next(line for line in self._lines() if line.startswith("  found in all"))

    def _lines(self) -> list[str]:
        rows = [
            (f"shared one to one > {self.threshold:g}", self.shared, self.shared_chance, True),
            (f"{self.paired_name} (one-to-one)", self.paired, self.paired_chance, False),
            ("MMCS (nearest)", self.mmcs, self.chance, False),
            ("closer than chance (5% FDR)", self.significant, np.full(1, np.nan), True),
        ]
        orphans = self._orphans().significant_in
        elsewhere = float((orphans > 0).mean()) if len(orphans) else math.nan
        return [
            *seeds_words.names_line(self.names, self.groups),
            *([] if self.on == "decoder" and self.signed else [f"  similarity: {self._similarity}"]),
            "",
            *(f"  {line}" for line in seeds_words.found_table(self.consensus.incidence, elsewhere)),
            "",
            *(f"  {line}" for line in seeds_words.spread_table(rows)),
            *(line for d in self._differences[:1] for line in wrap(str(d), **_INDENTED, max_lines=1)),
            *wrap(self.rarefaction.in_words(), **_INDENTED, max_lines=2),
        ]

    def __repr__(self) -> str:
        flagged = [f"{check}: {effect}" for check, (_, effect, _) in self._flagged.items()]
        return self._screen(self._lines(), flagged)

    @property
    def _similarity(self) -> str:
        return f"{'' if self.signed else 'absolute '}{self.on} cosine"

    def details(self) -> str:
        """Return the full report: the printed summary, then every matrix, interval and test."""
        lines = [repr(self), f"{self.n_runs} runs compared pair by pair: {self._similarity}"]
        lines += [f"  {line}" for line in runs_table(self.runs[: seeds_words.SHOWN])]
        if self.n_runs > seeds_words.SHOWN:
            lines.append(f"  … and {counted(self.n_runs - seeds_words.SHOWN, 'run')} more: see summary.json")
        lines += [f"  {line}" for line in self._confound_words()]
        for title, matrix, form in self._titled():
            lines += [f"  {title}", *(f"    {line}" for line in seeds_words.printed(matrix, self.names, form))]
        heads = {"above": f"shared one to one > {self.threshold:g}", "mean": self.paired_name, "mmcs": "MMCS"}
        if strata := strata_lines(self._strata(), heads | {"significant": "significant"}):
            lines += ["  by firing frequency, over all ordered pairs of runs", *(f"    {s}" for s in strata)]
        for group in self._groups_of_two:
            nearest, shared = self.interval(group), self.interval(group, "shared")
            lines.append(f"  mean MMCS within {group}: {nearest}")
            said = replace(shared, note="") if shared.note == nearest.note else shared
            lines.append(f"  mean share > {self.threshold:g} within {group}: {said}")
        lines += [f"  {d}" for d in self._differences]
        shares = [f"{k}: {v:.1%}" for k, v in enumerate(self.recurrence_shares)]
        lines.append(f"  latents by the number of other runs that find them: {'  '.join(ends(shares))}")
        lines += [f"  {self.consensus}", f"  {self.rarefaction}"]
        return "\n".join([*lines, *(f"  caveat: {c}" for c in self.caveats)])

    def _unlike(self) -> str | None:
        """Return why extrapolation from these runs would be meaningless; None if the runs are of one kind."""
        groups = list(dict.fromkeys(self.groups))
        if len(groups) > 1:
            return f"the runs belong to {len(groups)} groups ({', '.join(ends(groups))}) rather than one"
        apart = [self.names[at] for at in inference.runs_apart(self.mmcs)]
        return f"some runs stand apart from the others: {', '.join(ends(apart))}" if apart else None

    @cached_property
    def _flagged(self) -> dict[str, tuple[tuple[int, int], str, int]]:
        """Return, for each flagged check, the first flagged pair, the effect on it, and the number of flagged pairs."""
        flagged: dict[str, tuple[tuple[int, int], str, int]] = {}
        for at, pair in self.pairs.items():
            for text in pair.confounds:
                check, _, effect = text.partition(": ")
                first, said, n = flagged.get(check, (at, effect, 0))
                flagged[check] = (first, said, n + 1)
        return flagged

    def _confound_words(self) -> list[str]:
        """Return the flagged confounds as wrapped text: the first pair and the number of further pairs per check."""
        lines = []
        for check, ((i, j), effect, n) in self._flagged.items():
            also = f" (and {n - 1:,} more pairs)" if n > 2 else " (and one more pair)" if n == 2 else ""
            lines += textwrap.wrap(f"! {check}, [{i}] and [{j}]: {effect}{also}", 110, subsequent_indent="    ")
        return lines

    def _listed(self, matrix: np.ndarray) -> list[list[float | None]] | None:
        if self.n_runs > _LISTED:
            return None
        return [[None if math.isnan(v) else float(v) for v in row] for row in matrix]

    def _confounds_summary(self) -> dict[str, Any]:
        """Return the flagged confounds by pair; above 100 runs, the first pair and the number of pairs per check."""
        names = self.names
        if self.n_runs <= _LISTED:
            return {f"{names[i]}, {names[j]}": list(p.confounds) for (i, j), p in self.pairs.items()}
        return {
            check: {"pairs": n, "first": f"{names[i]}, {names[j]}", "effect_there": effect}
            for check, ((i, j), effect, n) in self._flagged.items()
        }


def _spread(histogram: np.ndarray) -> tuple[list[float], list[int]]:
    """Return the standard deviations and counts of the similarities in each row of a histogram over −1…1."""
    middles = (np.arange(N_BINS) + 0.5) * 2 / N_BINS - 1
    counts = [int(row.sum()) for row in histogram]
    deviations = [
        math.sqrt(np.cov(middles, fweights=row.astype(np.int64))) if n > 1 else math.nan
        for row, n in zip(histogram, counts, strict=True)
    ]
    return deviations, counts
