"""Did these two dictionaries learn the same features? One sweep, both directions, with and without double counting."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor

from sae_geometry.comparisons.inference import interval_over_latents
from sae_geometry.comparisons.strata import rare_words, strata
from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, running_on
from sae_geometry.io.formatting import aligned, or_dash, scalars
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.kernels.types import Sweep, SweepReport
from sae_geometry.matching import Assignment, On, OneToOne, match, operands
from sae_geometry.matching.defaults import SMALL
from sae_geometry.nulls import LISTED, Controls, How, default_turns, own_pairs, pair_controls, turned_pairs
from sae_geometry.pairwise.confounds import ConfoundAudit, Finding, confound_audit
from sae_geometry.pairwise.double_counting import DoubleCounting, double_counting
from sae_geometry.pairwise.inputs import describe_input, distinct
from sae_geometry.pairwise.matching_result import (
    Matching,
    MatchingName,
    nearest_matching,
    one_to_one_matching,
    with_mutual,
)
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Factors that turn inner products within A and within B into similarities: see `operands`.
OWN_SCALES: dict[On, tuple[float, float]] = {"decoder": (1.0, 1.0), "encoder": (1.0, 1.0), "both": (2.0, 0.5)}
MATCHINGS: tuple[MatchingName, ...] = ("nearest", "mutual", "greedy", "optimal")

_MEANING = {
    "nearest": "each latent's best partner; partners may be shared (double counting)",
    "mutual": "pairs that pick each other (one-to-one)",
    "greedy": "best remaining pair first (one-to-one)",
    "optimal": "largest total similarity (one-to-one; the assignment problem)",
}


@dataclass(frozen=True)
class OptimalLimits:
    """Limits of an optimal matching: the lowest similarity, and when to stop; see `compare`."""

    min_similarity: float | None = None
    max_gap: float = 0.0
    time_budget: float = math.inf


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Comparison of two dictionaries in both directions under one matching, with the nearest neighbors.

    Attributes:
        a, b: the dictionaries.
        matching, on, signed: method, compared directions ("decoder", "encoder", "both"), and whether similarity is
            the cosine or its absolute value.
        a_to_b, b_to_a: the requested matching, in both directions.
        nearest_a_to_b, nearest_b_to_a: the nearest partners, double counting allowed (the same objects if "nearest"
            is the requested matching).
        caveats: allowed mismatches and unknown spaces.
        report: how the sweep was run.
        assignment: the one-to-one matching with its certificate; None for "nearest".
        swept: the underlying sweep.
        limits: lowest similarity and stopping rule of an optimal matching.
        turns: number of matchings against B turned, for the null expectation of a one-to-one matching.
        made: cached matchings of the same sweep.
    """

    a: Dictionary
    b: Dictionary
    matching: MatchingName
    on: On
    signed: bool
    a_to_b: Matching
    b_to_a: Matching
    nearest_a_to_b: Matching
    nearest_b_to_a: Matching
    caveats: tuple[str, ...]
    assignment: Assignment | None
    swept: Sweep
    limits: OptimalLimits
    turns: int
    made: dict[MatchingName, Comparison]

    @property
    def report(self) -> SweepReport:
        """Return how the sweep was run: screen, device, block counts, certificates, seconds."""
        return self.swept.report

    def rematch(self, matching: MatchingName, progress: Progress | None = None) -> Comparison:
        """Return the comparison under another matching, without limits; sweep and matchings are cached.

        Raises:
            KeyboardInterrupt: Ctrl-C during the matching. (`compare(…, "optimal")` returns the best so far instead.)
        """
        if matching == self.matching and self._is_whole:
            return self
        if matching not in self.made and _with_matching(self, matching, OptimalLimits(), progress).was_interrupted:
            raise KeyboardInterrupt
        return self.made[matching]

    @cached_property
    def confounds(self) -> ConfoundAudit:
        """Return the confound audit of the two dictionaries, to be read before the numbers."""
        return confound_audit(self.a, self.b)

    @property
    def was_interrupted(self) -> bool:
        """Return whether Ctrl-C ended the optimal matching before it was certified."""
        return self.assignment is not None and self.assignment.interrupted

    @property
    def _is_whole(self) -> bool:
        return self.limits == OptimalLimits() and not self.was_interrupted

    @property
    def meaning(self) -> str:
        """Describe the matching and, for an optimal one that stopped early, its certified gap."""
        text = _MEANING[self.matching]
        certificate = None if self.assignment is None else self.assignment.certificate
        if self.limits.min_similarity is not None:
            text += f"; nothing below {self.limits.min_similarity:g} matched"
        if certificate is not None and not certificate.certified:
            text = (
                f"best one-to-one matching found, stopped ({certificate.stopped}) within a relative gap of "
                f"{certificate.relative_gap:.2g} of the largest total similarity"
            )
        return text

    def one_to_one(self) -> Comparison:
        """Return the one-to-one comparison: optimal up to 4,096 latents per side, greedy beyond, unless chosen."""
        if self.matching != "nearest":
            return self
        return self.rematch("optimal" if self.is_small else "greedy")

    def double_counting(self, progress: Progress | None = None) -> DoubleCounting:
        """Return MMCS in both directions, the mutual, greedy and optimal one-to-one matchings, and the largest hubs.

        Computes the three matchings at any size, once each.
        """
        made = [self.rematch(m, progress) for m in ("mutual", "greedy", "optimal")]
        return double_counting(self.nearest_a_to_b, self.nearest_b_to_a, [(c.a_to_b, c.b_to_a) for c in made])

    @property
    def is_small(self) -> bool:
        """Return whether both sides have at most 4,096 latents, so that every matching takes seconds."""
        return max(self.a.n_latents, self.b.n_latents) <= SMALL

    def to_pandas(self) -> pd.DataFrame:
        """Return both directions, one row per latent: direction ("a_to_b", "b_to_a"), then as `Matching.to_pandas`."""
        import pandas as pd

        frames = []
        for direction, m in (("a_to_b", self.a_to_b), ("b_to_a", self.b_to_a)):
            frame = m.to_pandas()
            frame.insert(0, "direction", direction)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def _strata(self) -> pd.DataFrame:
        """Return both directions by firing frequency and by crowding: direction, then as `comparisons.strata`."""
        import pandas as pd

        frames = []
        for direction, source, m in (("a_to_b", self.a, self.a_to_b), ("b_to_a", self.b, self.b_to_a)):
            frame = strata(source, m)
            frame.insert(0, "direction", direction)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Return all that is needed to quote the result: inputs, matching, both directions, caveats, sweep report."""
        out: dict[str, Any] = {
            "inputs": {"a": describe_input(self.a), "b": describe_input(self.b)},
            "confounds": self.confounds.summary(),
            "matching": self.matching,
            "matching_means": self.meaning,
            "limits": asdict(self.limits),
            "similarity": self.a_to_b.quantity,
            "a_to_b": self.a_to_b.summary() | {"interval": self._interval(self.a_to_b)},
            "b_to_a": self.b_to_a.summary() | {"interval": self._interval(self.b_to_a)},
            "strata": self._strata().to_dict("records"),
            "caveats": list(self.caveats),
            "sweep": asdict(self.report),
        }
        if self.matching != "nearest":
            out["nearest"] = {"a_to_b": self.nearest_a_to_b.summary(), "b_to_a": self.nearest_b_to_a.summary()}
            out["certificate"] = self.certificate()
        if self._is_whole and (self.is_small or "optimal" in self.made):
            out["double_counting"] = self.double_counting().summary()
        return out

    def _interval(self, m: Matching) -> dict[str, Any] | None:
        """Return the interval of this pair's mean, over latents; None with fewer than two latents."""
        return asdict(interval_over_latents(m.similarity)) if m.n_matched > 1 else None

    def _interval_words(self) -> str:
        spread = [interval_over_latents(m.similarity) if m.n_matched > 1 else None for m in (self.a_to_b, self.b_to_a)]
        texts = [f"{i.low:.4f}–{i.high:.4f}" if i else "unknown" for i in spread]
        return (
            f"95 % intervals of the {self.matching} means: {' and '.join(texts)}, over the latents of this one pair; "
            "they say nothing of other seeds"
        )

    def certificate(self) -> dict[str, Any] | None:
        """Return the plain values of the optimal matching's certificate (gap, rounds, certified, …), or None."""
        found = None if self.assignment is None else self.assignment.certificate
        return None if found is None else scalars(found)

    def plot_ecdf(self, ax: Axes | None = None) -> Axes:
        """Draw the ECDF of similarity, both directions, nearest and one-to-one, with the null expectation."""
        from sae_geometry import plots

        return plots.similarity_ecdf(self._curves(), ax=ax)

    def plot_histogram(self, ax: Axes | None = None) -> Axes:
        """Draw histograms of similarity over shared bins, for the curves of `plot_ecdf`."""
        from sae_geometry import plots

        return plots.similarity_histogram(self._curves(), ax=ax)

    def plot_multiplicity(self, ax: Axes | None = None) -> Axes:
        """Draw how many target latents are the nearest partner of 0, 1, 2, … latents, in both directions."""
        from sae_geometry import plots

        return plots.multiplicity_bars([self.nearest_a_to_b, self.nearest_b_to_a], ax=ax)

    def plot_double_counting(self, ax: Axes | None = None) -> Axes:
        """Draw mean similarity and number of pairs per matching, with the null expectation."""
        from sae_geometry import plots

        return plots.counting_bars(self.double_counting(), self.nearest_a_to_b, ax=ax)

    def _curves(self) -> list[Matching]:
        paired = self.one_to_one()
        return [self.nearest_a_to_b, self.nearest_b_to_a, paired.a_to_b, paired.b_to_a]

    def _table(self) -> list[tuple[str, ...]]:
        """Return the header and one row per direction, followed by nearest if another matching was requested."""
        shown = [self.a_to_b, self.b_to_a]
        if self.matching != "nearest":
            shown += [self.nearest_a_to_b, self.nearest_b_to_a]
        head = (
            "direction",
            "matching",
            "mean",
            "matched",
            "> 0.7",
            "covered",
            "chance",
            "own",
            "adjusted",
            "significant",
        )
        return [head, *(_cells(m) for m in shown)]

    def _chance_words(self) -> str:
        forth, back = self.nearest_a_to_b, self.nearest_b_to_a
        text = (
            "chance: the same against the target turned, its mean, second moment and inner cosines kept; own: the "
            "source with itself (nearest other latent; halves matched); adjusted: (mean − chance) / (1 − chance); "
            "significant: closer than its own dictionary and the target turned explain, 5 % false discoveries"
        )
        above = [m.fraction_above_by_chance(0.7) for m in (forth, back)]
        text += f"; nearest above 0.7 by chance: {above[0]:.2%} and {above[1]:.2%}"
        if math.isnan(forth.isotropic_chance):
            return text
        isotropic = f"{forth.isotropic_chance:.3f} and {back.isotropic_chance:.3f}"
        return f"{text}; isotropic directions would give nearest {isotropic}"

    def _control_words(self) -> str:
        """Describe how fair the controls are, and what share of latents exceeds them."""
        forth, back = self.nearest_a_to_b, self.nearest_b_to_a
        sides = [" and ".join(str(m.balance.get(name, "–")) for m in (forth, back)) for name in ("own", "turned")]
        beyond = " and ".join(f"{m.beyond_controls.value:.1%}" for m in (forth, back))
        return (
            f"balance, wins of the nearest among undecided latents (0.5 if the control is fair): own {sides[0]}; "
            f"turned {sides[1]}; beyond the controls without a threshold (2 × wins − 1): at least {beyond}"
        )

    def _notes(self) -> list[str]:
        """Return the notes printed below the table."""
        return [
            self._interval_words(),
            self._chance_words(),
            self._control_words(),
            *(text for text in (rare_words(self.a, self.a_to_b), rare_words(self.b, self.b_to_a)) if text is not None),
            *(f"{d.name}: {d.alive.describe()}" for d in (self.a, self.b)),
            *(f"confound: {f.check}: {f.effect}" for f in self._unsaid_confounds()),
            *(f"caveat: {c}" for c in self.caveats),
        ]

    def __repr__(self) -> str:
        lines = [f"Comparison of {_sized(self.a)} and {_sized(self.b)}"]
        lines.append(f"  matching: {self.matching} — {self.meaning}; similarity: {self.a_to_b.quantity}")
        lines += [f"  {line}" for line in aligned(self._table())]
        for note in self._notes():
            lines += textwrap.wrap(note, 110, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def _unsaid_confounds(self) -> list[Finding]:
        """Return the flagged confounds that no caveat names."""
        return [f for f in self.confounds.flagged if f.check not in ("model", "hook point", "dead latents")]

    def _repr_html_(self) -> str:
        from html import escape

        head, *rows = [[escape(cell) for cell in row] for row in self._table()]
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        return (
            f"<p><b>{escape(_sized(self.a))}</b> and <b>{escape(_sized(self.b))}</b>; {escape(self.matching)}: "
            f"{escape(self.meaning)}; similarity: {self.a_to_b.quantity}</p>"
            f"<table><thead><tr><th>{'</th><th>'.join(head)}</th></tr></thead><tbody>{body}</tbody></table>"
            f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in self._notes())}</ul>"
        )


def compare(
    a: Any,
    b: Any,
    matching: MatchingName = "nearest",
    *,
    on: On = "decoder",
    signed: bool = True,
    min_similarity: float | None = None,
    max_gap: float = 0.0,
    time_budget: float = math.inf,
    turns: int | None = None,
    allow_mismatch: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two dictionaries: for every latent of each, its partner in the other and their similarity.

    With C = A·Bᵀ over unit decoder directions, "nearest" takes argmax_j C_ij for each i and argmax_i C_ij for each j
    (the mean is MMCS, mean max cosine similarity, in each direction); "mutual" keeps pairs that pick each other;
    "greedy" takes the best remaining pair first; "optimal" maximizes the total similarity over one-to-one matchings.
    Ties go to the smaller index. All use one exact sweep: C is never materialized.

    Args:
        a, b: a `Dictionary`, an address ("demo:local-seed0", a path, …), an array or tensor [n_latents, d_in], a
            mapping {"W_dec": [n_latents, d_in]}, or a SAELens object.
        matching: "nearest", "mutual", "greedy" or "optimal", as above.
        on: compare "decoder" directions, "encoder" directions, or "both" (the mean of the two cosines).
        signed: False compares |cos|, so that a direction and its negative are equal.
        min_similarity: for "optimal": the lowest similarity of a pair; the matching is optimal under this limit.
        max_gap, time_budget: for "optimal": stop at this certified relative gap, or after about this many seconds.
        turns: number of one-to-one matchings against B turned, for the null expectation; 0 also skips the matching
            between halves of each dictionary. None: 3 up to 4,096 latents per side, 1 beyond.
        allow_mismatch: permit different models or hook points; every output then says so.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; sweeps run there, with
            bit-identical results.
        progress: called with the current step and its completed fraction, in [0, 1].

    Returns:
        Comparison, with `.a_to_b` and `.b_to_a`.

    Raises:
        ValueError: an unknown matching, a negative number of turns, different widths, or different spaces without
            `allow_mismatch`.

    Example:
        >>> import sae_geometry as sg
        >>> c = sg.compare("demo:local-seed0", "demo:local-seed1", matching="mutual")
        >>> c.a_to_b.n_matched == c.b_to_a.n_matched
        True
    """
    for what, value, known in (("matching", matching, MATCHINGS), ("on", on, get_args(On))):
        if value not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}; got {value!r}")
    limits = OptimalLimits(min_similarity, max_gap, time_budget)
    if matching != "optimal" and limits != OptimalLimits():
        raise ValueError(f"min_similarity, max_gap and time_budget are for matching='optimal'; got {matching!r}")
    if turns is not None and turns < 0:
        raise ValueError(f"turns is how often B is turned, 0 or more; got {turns}")
    left, right = distinct([as_dictionary(a), as_dictionary(b)])
    notes = tuple(f"{d.name}: {note}" for d in (left, right) for note in d.notes)
    caveats = notes + require_same_space(left, right, allow_mismatch, on=on)
    tick = None if progress is None else lambda share: progress("similarities", share)
    x, y = _operands(left, right, on)
    with running_on(executor):
        swept = listing_sweep(x, y, LISTED, absolute=not signed, progress=tick)
        controls = pair_controls(x, y, swept, How(not signed, OWN_SCALES[on]), progress)
        plain = _nearest((left, right), swept, controls, on, signed, caveats, turns)
        return plain if matching == "nearest" else _with_matching(plain, matching, limits, progress)


def _nearest(
    sides: tuple[Dictionary, Dictionary],
    swept: Sweep,
    controls: tuple[Controls, Controls],
    on: On,
    signed: bool,
    caveats: tuple[str, ...],
    turns: int | None,
) -> Comparison:
    """Build the comparison under "nearest" from completed sweeps."""
    assert swept.cols is not None
    left, right = sides
    forth = nearest_matching(left, right, swept.rows, controls[0], on=on, signed=signed)
    back = nearest_matching(right, left, swept.cols, controls[1], on=on, signed=signed)
    forth, back = with_mutual(forth, back), with_mutual(back, forth)
    caveats += (*forth.doubts, *back.doubts)
    turns = default_turns(left.n_latents, right.n_latents) if turns is None else turns
    return Comparison(
        left, right, "nearest", on, signed, forth, back, forth, back, caveats, None, swept, OptimalLimits(), turns, {}
    )  # fmt: skip


def _operands(a: Dictionary, b: Dictionary, on: On) -> tuple[Tensor, Tensor]:
    b = b.to(a.device)
    for d in (a, b):
        if on != "decoder" and d.encoder_directions is None:
            raise ValueError(f'{d.name!r} has no encoder, which on="{on}" needs; use on="decoder"')
    if on != "decoder" and a.encoder_directions.shape[1] != b.encoder_directions.shape[1]:  # type: ignore[union-attr]
        widths = [d.encoder_directions.shape[1] for d in (a, b) if d.encoder_directions is not None]
        raise ValueError(f"the encoders of {a.name!r} and {b.name!r} read {widths[0]} and {widths[1]} dimensions: "
                         'cosines between them do not exist; use on="decoder"')  # fmt: skip
    return operands((a.directions, a.encoder_directions), (b.directions, b.encoder_directions), on)


def _with_matching(
    c: Comparison, matching: MatchingName, limits: OptimalLimits, progress: Progress | None
) -> Comparison:
    """Return `c` under another matching with the same nearest matchings; cache it in `made` if complete."""
    forth, back = c.nearest_a_to_b, c.nearest_b_to_a
    if matching == "nearest":
        c.made[matching] = replace(c, matching=matching, a_to_b=forth, b_to_a=back, assignment=None, limits=limits)
        return c.made[matching]
    tick = None if progress is None else lambda step: progress(step.label, step.share)
    x, y = _operands(c.a, c.b, c.on)
    assignment = match(x, y, matching, absolute=not c.signed, nearest=c.swept, progress=tick, **asdict(limits))
    there = one_to_one_matching(forth, back, matching, assignment.partner, assignment.cosine)
    here = one_to_one_matching(back, forth, matching, *assignment.reverse(c.b.n_latents))
    if c.turns and not assignment.interrupted:
        there, here = _with_expected(c, there, here, matching, limits, progress)
    made = replace(c, matching=matching, a_to_b=there, b_to_a=here, assignment=assignment, limits=limits)
    if limits == OptimalLimits() and not made.was_interrupted:
        c.made[matching] = made
    return made


def _with_expected(
    c: Comparison,
    there: Matching,
    here: Matching,
    method: OneToOne,
    limits: OptimalLimits,
    progress: Progress | None,
) -> tuple[Matching, Matching]:
    """Add the null expectations of `method`, against B turned and between halves of each dictionary."""
    if progress is not None:
        progress(f"chance of {method}", 0.0)
    x, y = _operands(c.a, c.b, c.on)
    how: Any = {"absolute": not c.signed} | (asdict(limits) if method == "optimal" else {})
    expected = turned_pairs(x, y, method, c.turns, **how)
    of_x, of_y = (own_pairs(z, method, scale=s, **how) for z, s in zip((x, y), OWN_SCALES[c.on], strict=True))
    return (
        replace(there, expected_pairs=expected, own_pairs=of_x),
        replace(here, expected_pairs=expected, own_pairs=of_y),
    )


def _cells(m: Matching) -> tuple[str, ...]:
    return (
        f"{m.source} → {m.target}",
        m.method,
        f"{m.mean_similarity:.4f}",
        f"{m.n_matched:,} of {m.n_latents:,}",
        f"{m.fraction_above(0.7):.1%}",
        f"{m.coverage:.1%}",
        or_dash(m.chance, ".3f"),
        or_dash(m.own, ".3f"),
        or_dash(m.chance_adjusted, ".3f"),
        f"{m.significant_fraction:.1%}",
    )


def _sized(d: Dictionary) -> str:
    return f"{d.name!r} ({d.n_latents:,} × {d.d_in:,})"
