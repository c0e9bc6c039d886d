"""What comparing many runs pair by pair answers: matrices, recurrence, consensus, rarefaction, and how sure that is."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sae_geometry.comparisons.consensus import Consensus, consensus
from sae_geometry.comparisons.inference import (
    Interval,
    KindDifference,
    interval_over_latents,
    interval_over_runs,
    kind_difference,
)
from sae_geometry.comparisons.rarefaction import Rarefaction, rarefaction
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import aligned, ends, or_dash
from sae_geometry.matching import On, OneToOne
from sae_geometry.pairwise.checkpoint import N_BINS, PairRecord
from sae_geometry.pairwise.confounds import runs_table
from sae_geometry.pairwise.grouping import groups_of, kind_of, labels_of, layer_of, seed_of
from sae_geometry.pairwise.inputs import describe_input

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 12  # runs in a printed matrix
_LISTED = 100  # runs whose matrices a summary holds


@dataclass(frozen=True, eq=False, repr=False)
class SeedComparison:
    """N runs compared pair by pair.

    Matrices are [N, N] with the source in rows and the target in columns, nan on the diagonal.

    Attributes:
        runs: the dictionaries.
        matching: the one-to-one matching: "optimal" makes `paired` the PW-MCC.
        on, signed: what is compared, and whether by the cosine or its absolute value.
        threshold: a latent is *found* in another run where its one-to-one partner there is more similar than this.
        pairs: a record for every unordered pair (i, j), i < j.
        caveats: what every reader must know.
    """

    runs: tuple[Dictionary, ...]
    matching: OneToOne
    on: On
    signed: bool
    threshold: float
    pairs: Mapping[tuple[int, int], PairRecord]
    caveats: tuple[str, ...]

    @property
    def n_runs(self) -> int:
        """N."""
        return len(self.runs)

    @property
    def names(self) -> list[str]:
        """Of the runs."""
        return [d.name for d in self.runs]

    @property
    def labels(self) -> list[str]:
        """Names for a reader: with the seed where it is known and the name does not show it."""
        return labels_of(self.runs)

    @cached_property
    def groups(self) -> list[str]:
        """Of each run, what makes it comparable: its kind, and its layer where the runs are of several."""
        return groups_of(self.runs)

    @cached_property
    def mmcs(self) -> np.ndarray:
        """MMCS(i → j): mean over latents of i of the largest similarity to any latent of j, double counting allowed."""
        return self._directed("mmcs")

    @cached_property
    def chance(self) -> np.ndarray:
        """MMCS(i → j) of as many random directions as j has, with j's mean and second moment."""
        return self._directed("chance")

    @cached_property
    def isotropic_chance(self) -> np.ndarray:
        """MMCS(i → j) of as many isotropic directions."""
        return self._directed("isotropic")

    @cached_property
    def found(self) -> np.ndarray:
        """Share of i's latents closer to their nearest in j than chance, false discovery rate 5 %."""
        return self._directed("found")

    @cached_property
    def shared(self) -> np.ndarray:
        """Share of i's latents whose one-to-one partner in j is more similar than the threshold."""
        counts = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            counts[i, j] = counts[j, i] = np.sum(pair.similarity > self.threshold)
        return counts / np.array([[d.n_latents] for d in self.runs])

    @cached_property
    def shared_chance(self) -> np.ndarray:
        """At most this share of i's latents would be `shared` by chance: random directions with j's moments.

        That share of i's latents would have their *nearest* of those directions above the threshold, and no
        one-to-one partner is closer than the nearest.
        """
        return self._directed("nearest_above_chance")

    @cached_property
    def shared_by_both(self) -> np.ndarray:
        """Share of i's latents whose one-to-one decoder *and* encoder similarities to j are above the threshold.

        The two matchings are made separately (Paulo & Belrose 2025); nan where a run has no encoder.
        """
        return self._with_encoders(lambda dec, enc, same: (dec > self.threshold) & (enc > self.threshold))

    @cached_property
    def same_partner(self) -> np.ndarray:
        """Share of i's latents whose decoder and encoder matchings name the same latent of j; nan without encoders."""
        return self._with_encoders(lambda dec, enc, same: same)

    @cached_property
    def paired(self) -> np.ndarray:
        """Mean similarity of the one-to-one pairs: the PW-MCC where the matching is optimal. Symmetric."""
        return self._symmetric("paired")

    @cached_property
    def paired_chance(self) -> np.ndarray:
        """`paired` of random dictionaries with the same moments; nan where not simulated. Symmetric."""
        return self._symmetric("paired_chance")

    @property
    def paired_name(self) -> str:
        """ "PW-MCC" for an optimal matching, "mean of greedy pairs" otherwise."""
        return "PW-MCC" if self.matching == "optimal" else f"mean of {self.matching} pairs"

    @cached_property
    def recurrence(self) -> np.ndarray:
        """int64 [N, N]: [i, k] latents of run i found in exactly k = 0 … N−1 of the other runs."""
        times = (self._partners[1] > self.threshold).sum(axis=1)
        each = np.split(times, self._starts[1:-1])
        return np.stack([np.bincount(t, minlength=self.n_runs) for t in each]).astype(np.int64)

    @cached_property
    def recurrence_shares(self) -> np.ndarray:
        """float64 [N]: share of all runs' latents found in exactly 0 … N−1 of the other runs."""
        total = self.recurrence.sum(axis=0)
        return np.asarray(total / total.sum())

    @cached_property
    def consensus(self) -> Consensus:
        """Groups of latents that the runs agree on: see `Consensus`."""
        return consensus(self.runs, *self._partners, threshold=self.threshold)

    @cached_property
    def rarefaction(self) -> Rarefaction:
        """How many distinct latents the runs have found, and more runs would: see `Rarefaction`."""
        return rarefaction(self.consensus.incidence)

    def interval(self, group: str, what: str = "mmcs") -> Interval:
        """The mean over ordered pairs of runs of one group, with its interval.

        Over runs where there are three or more of that group; with two, over the latents of that one pair, which says
        nothing of other seeds (none for "found").

        Args:
            group: one of `groups`.
            what: a matrix: "mmcs", "shared", "paired", "found".

        Raises:
            ValueError: a group with fewer than two runs, or a matrix that is none.
        """
        matrix = self._matrix(what)
        members = [at for at, g in enumerate(self.groups) if g == group]
        if len(members) < 2:
            raise ValueError(f"{group!r} has {len(members)} runs; a mean over pairs needs at least two")
        within = matrix[np.ix_(members, members)]
        if len(members) > 2:
            return interval_over_runs(within)
        i, j = members
        pair = self.pairs[i, j]
        if what == "mmcs":
            return _pooled(pair)
        mean = float((matrix[i, j] + matrix[j, i]) / 2)
        if what == "found":
            return Interval(mean, math.nan, math.nan, 0.95, "latents of one pair", len(pair.similarity), math.nan)
        values = pair.similarity if what == "paired" else (pair.similarity > self.threshold).astype(np.float64)
        own = interval_over_latents(values)
        shift = mean - own.mean
        return replace(own, mean=mean, low=own.low + shift, high=own.high + shift)

    def difference(self, first: str, second: str, what: str = "mmcs") -> KindDifference:
        """Do runs of one group resemble each other more than runs of another? A permutation test, or a refusal.

        Args:
            first, second: two of `groups`.
            what: as in `interval`.
        """
        return kind_difference(self._matrix(what), self.groups, first, second)

    def to_pandas(self) -> pd.DataFrame:
        """One row an ordered pair: source, target, and of each its kind, layer, seed and group; mmcs, chance,
        chance_isotropic, corrected, found, nearest_above, nearest_above_chance, shared, shared_by_both, same_partner,
        paired, paired_chance, matching, n_source, n_target, confounds (what is flagged, in a word each).
        """
        import pandas as pd

        i, j = np.nonzero(~np.eye(self.n_runs, dtype=bool))
        said: dict[str, Any] = {
            "": self.names,
            "_kind": [kind_of(d) for d in self.runs],
            "_layer": pd.array([layer_of(d) for d in self.runs], dtype="Int64"),
            "_seed": [_as_text(seed_of(d)) for d in self.runs],
            "_group": self.groups,
        }
        told = {key: pd.Series(values) for key, values in said.items()}
        n = np.array([d.n_latents for d in self.runs])
        above, by_chance = self._directed("nearest_above"), self._directed("nearest_above_chance")
        checks = np.full((self.n_runs, self.n_runs), "", dtype=object)
        for (x, y), pair in self.pairs.items():
            checks[x, y] = checks[y, x] = _checks(pair.confounds)
        return pd.DataFrame(
            {
                "source": told[""].take(i).array,
                "target": told[""].take(j).array,
                **{f"source{key}": told[key].take(i).array for key in list(told)[1:]},
                **{f"target{key}": told[key].take(j).array for key in list(told)[1:]},
                "mmcs": self.mmcs[i, j],
                "chance": self.chance[i, j],
                "chance_isotropic": self.isotropic_chance[i, j],
                "corrected": ((self.mmcs - self.chance) / (1 - self.chance))[i, j],
                "found": self.found[i, j],
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
        """Everything a reader needs to quote the result, JSON-ready; of more than 100 runs, no matrices."""
        return {
            "inputs": {f"{k}": describe_input(d) for k, d in enumerate(self.runs)},
            "similarity": f"{'' if self.signed else 'absolute '}{self.on} cosine",
            "one_to_one_matching": self.matching,
            "threshold": self.threshold,
            "runs": self.names,
            "groups": self.groups,
            "kinds": [kind_of(d) for d in self.runs],
            "layers": [layer_of(d) for d in self.runs],
            "hook_points": [d.hook_point for d in self.runs],
            "seeds": [seed_of(d) for d in self.runs],
            "rows_are": "the source, columns the target",
            **({} if self._lists_pairs else {"matrices": "left out for so many runs: pairs.parquet has them"}),
            "mmcs": self._listed(self.mmcs),
            "mmcs_chance_covariance_matched": self._listed(self.chance),
            "mmcs_chance_isotropic": self._listed(self.isotropic_chance),
            "found_beyond_chance": self._listed(self.found),
            "shared": self._listed(self.shared),
            "shared_by_chance_at_most": self._listed(self.shared_chance),
            "shared_by_decoder_and_encoder": self._listed(self.shared_by_both),
            "same_partner_by_decoder_and_encoder": self._listed(self.same_partner),
            "paired_means": f"{self.paired_name}: mean similarity of the {self.matching} one-to-one pairs",
            "paired": self._listed(self.paired),
            "paired_chance": self._listed(self.paired_chance),
            "recurrence_means": "latents of each run found (one-to-one similarity above the threshold) in exactly "
            "0, 1, … of the other runs",
            "recurrence": self.recurrence.tolist(),
            "recurrence_shares": self.recurrence_shares.tolist(),
            "within_groups": {group: self._interval_summary(group) for group in self._groups_of_two},
            "between_groups": [asdict(d) for d in self._differences],
            "consensus": {
                "means": "cycle-consistent groups: every two members are one-to-one partners above the threshold",
                "groups": len(self.consensus.members),
                "found_by_exactly": self.consensus.incidence.tolist(),
                "orphans": [len(o) for o in self.consensus.orphans],
            },
            "rarefaction": self.rarefaction.summary(),
            "confounds": self._confounds_summary(),
            "caveats": list(self.caveats),
        }

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """What is saved: pairs (an ordered pair a row), consensus, orphans."""
        return {
            "pairs": self.to_pandas(),
            "consensus": self.consensus.to_pandas(),
            "orphans": self.consensus.orphans_table(),
        }

    def write_extra(self, folder: Path) -> None:
        """What is saved beside tables and figures: consensus.safetensors, where the runs agree on anything."""
        if len(self.consensus.members):
            self.consensus.save(folder / "consensus.safetensors")

    def figures(self) -> Mapping[str, Figure]:
        """What is drawn when it is saved."""
        from sae_geometry import plots

        return {
            "matrices": plots.seeds_figure(self),
            "ridgeline": plots.ridgeline_figure(self),
            "recurrence": plots.recurrence_figure(self),
        }

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """The runs."""
        return self.runs

    def plot_heatmap(self, what: str = "mmcs", ax: Axes | None = None) -> Axes:
        """One matrix, annotated, groups in blocks."""
        from sae_geometry import plots

        return plots.seeds_heatmap(self, what, ax=ax)

    def plot_recurrence(self, ax: Axes | None = None) -> Axes:
        """Share of latents found in exactly 0 … N−1 other runs."""
        from sae_geometry import plots

        return plots.recurrence_bars(self, ax=ax)

    def plot_rarefaction(self, ax: Axes | None = None) -> Axes:
        """Distinct latents against runs, extrapolated to twice as many."""
        from sae_geometry import plots

        return plots.rarefaction_curve(self.rarefaction, ax=ax)

    @property
    def _groups_of_two(self) -> list[str]:
        return [g for g in dict.fromkeys(self.groups) if self.groups.count(g) > 1]

    @cached_property
    def _differences(self) -> list[KindDifference]:
        groups = list(dict.fromkeys(self.groups))
        return [self.difference(a, b) for a, b in itertools.combinations(groups, 2)]

    def _interval_summary(self, group: str) -> dict[str, Any]:
        return {what: asdict(self.interval(group, what)) for what in ("mmcs", "shared", "paired")}

    @cached_property
    def _partners(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all runs' latents in the runs' order: int32 [L, N] partner rows (−1 none), float64 [L, N] similarities."""
        shape = (sum(d.n_latents for d in self.runs), self.n_runs)
        rows, similarity = np.full(shape, -1, dtype=np.int32), np.full(shape, np.nan)
        starts = self._starts
        for (i, j), pair in self.pairs.items():
            there = np.flatnonzero(pair.partner >= 0)
            own, other = slice(starts[i], starts[i + 1]), starts[j] + pair.partner[there]
            rows[own, j], similarity[own, j] = pair.partner, pair.similarity
            rows[other, i], similarity[other, i] = there, pair.similarity[there]
        return rows, similarity

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64 [N + 1]: where each run's latents begin among all."""
        return np.cumsum([0, *(d.n_latents for d in self.runs)])

    def _matrix(self, what: str) -> np.ndarray:
        if what not in ("mmcs", "shared", "paired", "found"):
            raise ValueError(f"a matrix is one of mmcs, shared, paired, found; got {what!r}")
        return np.asarray(getattr(self, what))

    def _directed(self, name: str) -> np.ndarray:
        out = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            out[i, j], out[j, i] = getattr(pair, name)
        return out

    def _symmetric(self, name: str) -> np.ndarray:
        out = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            out[i, j] = out[j, i] = getattr(pair, name)
        return out

    def _with_encoders(self, holds: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        out = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            if len(pair.encoder_partner):
                same = (pair.partner >= 0) & (pair.partner == pair.encoder_partner)
                count = float(holds(pair.similarity, pair.encoder_similarity, same).sum())
                out[i, j], out[j, i] = count / self.runs[i].n_latents, count / self.runs[j].n_latents
        return out

    def __repr__(self) -> str:
        lines = [f"{self.n_runs} runs compared pair by pair: {'' if self.signed else 'absolute '}{self.on} cosine"]
        lines += [f"  {line}" for line in runs_table(self.runs[:_SHOWN])]
        if self.n_runs > _SHOWN:
            lines.append(f"  … and {self.n_runs - _SHOWN} runs more: see summary.json")
        lines += [f"  {line}" for line in self._confound_words()]
        for title, matrix, form in (
            ("MMCS, row → column (double counting allowed)", self.mmcs, ".3f"),
            ("chance for that: random directions with the column's mean and second moment", self.chance, ".3f"),
            (f"{self.paired_name} (one-to-one)", self.paired, ".3f"),
            (
                f"share of the row's latents with a one-to-one partner > {self.threshold:g} in the column",
                self.shared,
                ".1%",
            ),
            (
                f"chance for that, at most: the share with any of those directions > {self.threshold:g}",
                self.shared_chance,
                ".2%",
            ),
        ):
            lines += [f"  {title}", *(f"    {line}" for line in self._printed(matrix, form))]
        for group in self._groups_of_two:
            lines.append(f"  mean MMCS within {group}: {self.interval(group)}")
        lines += [f"  {d}" for d in self._differences]
        shares = [f"{k}: {v:.1%}" for k, v in enumerate(self.recurrence_shares)]
        lines.append(f"  latents found in exactly so many other runs: {'  '.join(ends(shares))}")
        lines += [f"  {self.consensus}", f"  {self.rarefaction}"]
        return "\n".join([*lines, *(f"  caveat: {c}" for c in self.caveats)])

    @cached_property
    def _flagged(self) -> dict[str, tuple[tuple[int, int], str, int]]:
        """For each check that is flagged: the first pair, its effect there, and in how many pairs it is."""
        flagged: dict[str, tuple[tuple[int, int], str, int]] = {}
        for at, pair in self.pairs.items():
            for text in pair.confounds:
                check, _, effect = text.partition(": ")
                first, said, n = flagged.get(check, (at, effect, 0))
                flagged[check] = (first, said, n + 1)
        return flagged

    def _confound_words(self) -> list[str]:
        """What is flagged of pairs, wrapped: for each check the first pair, and in how many more it is."""
        lines = []
        for check, ((i, j), effect, n) in self._flagged.items():
            also = f" (and {n - 1:,} more pairs)" if n > 2 else " (and one more pair)" if n == 2 else ""
            lines += textwrap.wrap(f"! {check}, [{i}] and [{j}]: {effect}{also}", 110, subsequent_indent="    ")
        return lines

    @property
    def _lists_pairs(self) -> bool:
        """Whether the summary has a value for every pair: not of so many runs that nobody could read it."""
        return self.n_runs <= _LISTED

    def _listed(self, matrix: np.ndarray) -> list[list[float | None]] | None:
        if not self._lists_pairs:
            return None
        return [[None if math.isnan(v) else float(v) for v in row] for row in matrix]

    def _confounds_summary(self) -> dict[str, Any]:
        """What is flagged of each pair; of many runs, for each check the first pair and the number of pairs."""
        names = self.names
        if self._lists_pairs:
            return {f"{names[i]}, {names[j]}": list(p.confounds) for (i, j), p in self.pairs.items()}
        return {
            check: {"pairs": n, "first": f"{names[i]}, {names[j]}", "effect_there": effect}
            for check, ((i, j), effect, n) in self._flagged.items()
        }

    def _printed(self, matrix: np.ndarray, form: str) -> list[str]:
        shown = range(min(self.n_runs, _SHOWN))
        head = ("", *(f"[{j}]" for j in shown))
        rows = [
            (f"[{i}] {self.names[i]}", *("·" if i == j else or_dash(matrix[i, j], form) for j in shown)) for i in shown
        ]
        more = [f"… and {self.n_runs - _SHOWN} runs more: see pairs.parquet"] if self.n_runs > _SHOWN else []
        return aligned([head, *rows]) + more


def _pooled(pair: PairRecord) -> Interval:
    """The mean of both directions' MMCS, with Student's interval over the latents of both, from the histograms."""
    centres = (np.linspace(-1, 1, N_BINS + 1)[1:] + np.linspace(-1, 1, N_BINS + 1)[:-1]) / 2
    mean = sum(pair.mmcs) / 2
    errors = []
    for counts in pair.histogram:
        n = counts.sum()
        middle = float((counts * centres).sum() / n)
        errors.append(float((counts * (centres - middle) ** 2).sum()) / max(n - 1, 1) / n)
    error = math.sqrt(sum(errors)) / 2
    n = int(pair.histogram.sum())
    return Interval(mean, mean - 1.96 * error, mean + 1.96 * error, 0.95, "latents of one pair", n, error)


def _as_text(seed: int | str | None) -> str | None:
    return None if seed is None else str(seed)


def _checks(confounds: Sequence[str]) -> str:
    return "; ".join(text.partition(": ")[0] for text in confounds)
