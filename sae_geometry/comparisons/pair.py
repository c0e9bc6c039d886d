"""Did these two dictionaries learn the same features? One sweep, both directions, with and without double counting."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor

from sae_geometry.comparisons.inference import interval_over_latents
from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, running_on
from sae_geometry.io.formatting import aligned, or_dash, scalars
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Sweep, SweepReport
from sae_geometry.matching import Assignment, On, OneToOne, match, operands
from sae_geometry.matching.defaults import SMALL
from sae_geometry.nulls.one_to_one import default_draws, paired_chance, paired_isotropic
from sae_geometry.pairwise.confounds import ConfoundAudit, Finding, confound_audit
from sae_geometry.pairwise.double_counting import DoubleCounting, double_counting
from sae_geometry.pairwise.inputs import describe_input, distinct
from sae_geometry.pairwise.matching_result import (
    Matching,
    MatchingName,
    few_latents,
    nearest_matching,
    one_to_one_matching,
    with_mutual,
)
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MATCHINGS: tuple[MatchingName, ...] = ("nearest", "mutual", "greedy", "optimal")

_MEANING = {
    "nearest": "each latent's best partner; partners may be shared (double counting)",
    "mutual": "pairs that pick each other (one-to-one)",
    "greedy": "best remaining pair first (one-to-one)",
    "optimal": "largest total similarity (one-to-one; the assignment problem)",
}


@dataclass(frozen=True)
class OptimalLimits:
    """What an optimal matching may leave unmatched, and when it may stop: see `compare`."""

    min_similarity: float | None = None
    max_gap: float = 0.0
    time_budget: float = math.inf


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Two dictionaries compared in both directions, under one matching, with the nearest neighbours always at hand.

    Attributes:
        a, b: the dictionaries.
        matching, on, signed: how pairs were made, what was compared ("decoder", "encoder", "both"), and whether by
            the cosine or its absolute value.
        a_to_b, b_to_a: the matching asked for, in both directions.
        nearest_a_to_b, nearest_b_to_a: the nearest partners, double counting allowed (the same objects when that is
            the matching asked for).
        caveats: what every reader of the numbers must know: allowed mismatches, unknown spaces.
        report: how the sweep was run.
        assignment: the one-to-one matching with its certificate; None for "nearest".
        swept: the sweep behind it.
        limits: what an optimal matching was told to leave unmatched, and when to stop.
        null_draws: how many pairs of random dictionaries each one-to-one matching is made on, for its chance.
        made: other matchings of the same sweep, kept so that none is made twice.
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
    null_draws: int
    made: dict[MatchingName, Comparison]

    @property
    def report(self) -> SweepReport:
        """How the sweep was run: screen, device, block counts, what was certified, seconds."""
        return self.swept.report

    def rematch(self, matching: MatchingName, progress: Progress | None = None) -> Comparison:
        """The same two dictionaries under another matching, without limits; neither sweep nor matching is made twice.

        Raises:
            KeyboardInterrupt: Ctrl-C while it is made. (`compare(…, "optimal")` returns the best so far instead.)
        """
        if matching == self.matching and self._is_whole:
            return self
        if matching not in self.made and _with_matching(self, matching, OptimalLimits(), progress).was_interrupted:
            raise KeyboardInterrupt
        return self.made[matching]

    @cached_property
    def confounds(self) -> ConfoundAudit:
        """What else than learning could make the two alike, or unlike: to be read before the numbers."""
        return confound_audit(self.a, self.b)

    @property
    def was_interrupted(self) -> bool:
        """Whether Ctrl-C ended the optimal matching before it was proven."""
        return self.assignment is not None and self.assignment.interrupted

    @property
    def _is_whole(self) -> bool:
        return self.limits == OptimalLimits() and not self.was_interrupted

    @property
    def meaning(self) -> str:
        """What the matching means and, for an optimal one that stopped early, how far it is proven."""
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
        """Itself if one-to-one; otherwise the optimal matching up to 4,096 latents a side, the greedy one beyond."""
        if self.matching != "nearest":
            return self
        return self.rematch("optimal" if self.is_small else "greedy")

    def double_counting(self, progress: Progress | None = None) -> DoubleCounting:
        """MMCS in both directions beside the mutual, greedy and optimal one-to-one matchings, and the largest hubs.

        Makes the three matchings, whatever their size; each is made once.
        """
        made = [self.rematch(m, progress) for m in ("mutual", "greedy", "optimal")]
        return double_counting(self.nearest_a_to_b, self.nearest_b_to_a, [(c.a_to_b, c.b_to_a) for c in made])

    @property
    def is_small(self) -> bool:
        """At most 4,096 latents a side: every matching is a matter of seconds, and is made unasked."""
        return max(self.a.n_latents, self.b.n_latents) <= SMALL

    def to_pandas(self) -> pd.DataFrame:
        """Both directions, one row a latent: direction ("a_to_b", "b_to_a"), then as `Matching.to_pandas`."""
        import pandas as pd

        frames = []
        for direction, m in (("a_to_b", self.a_to_b), ("b_to_a", self.b_to_a)):
            frame = m.to_pandas()
            frame.insert(0, "direction", direction)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Everything a reader needs to quote the result: inputs, matching, both directions, caveats, how it was run."""
        out: dict[str, Any] = {
            "inputs": {"a": describe_input(self.a), "b": describe_input(self.b)},
            "confounds": self.confounds.summary(),
            "matching": self.matching,
            "matching_means": self.meaning,
            "limits": asdict(self.limits),
            "similarity": self.a_to_b.quantity,
            "a_to_b": self.a_to_b.summary() | {"interval": self._interval(self.a_to_b)},
            "b_to_a": self.b_to_a.summary() | {"interval": self._interval(self.b_to_a)},
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
        """How well the mean of this pair is known, over its latents; None with fewer than two."""
        return asdict(interval_over_latents(m.similarity)) if m.n_matched > 1 else None

    def _interval_words(self) -> str:
        spread = [interval_over_latents(m.similarity) if m.n_matched > 1 else None for m in (self.a_to_b, self.b_to_a)]
        texts = [f"{i.low:.4f}–{i.high:.4f}" if i else "unknown" for i in spread]
        return (
            f"95 % intervals of the {self.matching} means: {' and '.join(texts)}, over the latents of this one pair; "
            "they say nothing of other seeds"
        )

    def certificate(self) -> dict[str, Any] | None:
        """The plain values of the optimal matching's certificate (gap, rounds, certified, …); None without one."""
        found = None if self.assignment is None else self.assignment.certificate
        return None if found is None else scalars(found)

    def plot_ecdf(self, ax: Axes | None = None) -> Axes:
        """ECDF of the similarity, both directions, nearest and one-to-one, with the chance line."""
        from sae_geometry import plots

        return plots.similarity_ecdf(self._curves(), ax=ax)

    def plot_histogram(self, ax: Axes | None = None) -> Axes:
        """Histogram of the similarity over shared bins, the same curves as `plot_ecdf`."""
        from sae_geometry import plots

        return plots.similarity_histogram(self._curves(), ax=ax)

    def plot_multiplicity(self, ax: Axes | None = None) -> Axes:
        """How many target latents are claimed 0, 1, 2, … times as nearest partner, in both directions."""
        from sae_geometry import plots

        return plots.multiplicity_bars([self.nearest_a_to_b, self.nearest_b_to_a], ax=ax)

    def plot_double_counting(self, ax: Axes | None = None) -> Axes:
        """Mean similarity under each way of counting, pairs beside it, with the chance line."""
        from sae_geometry import plots

        return plots.counting_bars(self.double_counting(), self.nearest_a_to_b, ax=ax)

    def _curves(self) -> list[Matching]:
        paired = self.one_to_one()
        return [self.nearest_a_to_b, self.nearest_b_to_a, paired.a_to_b, paired.b_to_a]

    def _table(self) -> list[tuple[str, ...]]:
        """The header and a row for each direction: nearest last, where it is not what was asked for."""
        shown = [self.a_to_b, self.b_to_a]
        if self.matching != "nearest":
            shown += [self.nearest_a_to_b, self.nearest_b_to_a]
        head = ("direction", "matching", "mean", "matched", "> 0.7", "covered", "chance", "corrected", "found")
        return [head, *(_cells(m) for m in shown)]

    def _chance_words(self) -> str:
        forth, back = self.nearest_a_to_b, self.nearest_b_to_a
        text = (
            "chance: random directions with the target's own mean and second moment; corrected: (mean − chance) / "
            "(1 − chance); found: closer than the nearest of them, 5 % false discoveries"
        )
        above = [m.fraction_above_by_chance(0.7) for m in (forth, back)]
        if not any(map(math.isnan, above)):
            text += f"; nearest above 0.7 by chance: {above[0]:.2%} and {above[1]:.2%}"
        if math.isnan(forth.isotropic_chance):
            return text
        isotropic = f"{forth.isotropic_chance:.3f} and {back.isotropic_chance:.3f}"
        text += f"; isotropic directions would give nearest {isotropic}"
        paired = self.a_to_b.paired_isotropic
        return text if paired is None else f"{text}, {self.matching} {paired.mean_similarity:.3f}"

    def __repr__(self) -> str:
        lines = [f"Comparison of {_sized(self.a)} and {_sized(self.b)}"]
        lines.append(f"  matching: {self.matching} — {self.meaning}; similarity: {self.a_to_b.quantity}")
        lines += [f"  {line}" for line in aligned(self._table())]
        lines.append(f"  {self._interval_words()}")
        lines += textwrap.wrap(self._chance_words(), 110, initial_indent="  ", subsequent_indent="    ")
        lines += [f"  {d.name}: {d.alive.describe()}" for d in (self.a, self.b)]
        for f in self._unsaid_confounds():
            text = f"confound: {f.check}: {f.effect}"
            lines += textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="    ")
        lines += [f"  caveat: {c}" for c in self.caveats]
        return "\n".join(lines)

    def _unsaid_confounds(self) -> list[Finding]:
        """The flagged confounds that no caveat names."""
        return [f for f in self.confounds.flagged if f.check not in ("model", "hook point", "dead latents")]

    def _repr_html_(self) -> str:
        from html import escape

        head, *rows = [[escape(cell) for cell in row] for row in self._table()]
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        notes = [
            self._interval_words(),
            self._chance_words(),
            *(f"{d.name}: {d.alive.describe()}" for d in (self.a, self.b)),
        ]
        notes += [f"confound: {f.check}: {f.effect}" for f in self._unsaid_confounds()]
        notes += [f"caveat: {c}" for c in self.caveats]
        return (
            f"<p><b>{escape(_sized(self.a))}</b> and <b>{escape(_sized(self.b))}</b>; {escape(self.matching)}: "
            f"{escape(self.meaning)}; similarity: {self.a_to_b.quantity}</p>"
            f"<table><thead><tr><th>{'</th><th>'.join(head)}</th></tr></thead><tbody>{body}</tbody></table>"
            f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"
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
    null_draws: int | None = None,
    allow_mismatch: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two dictionaries: for every latent of each, its partner in the other and how alike they are.

    With C = A·Bᵀ over unit decoder directions, "nearest" takes argmax_j C_ij for each i and argmax_i C_ij for each j
    (the mean is MMCS, mean max cosine similarity, in each direction); "mutual" keeps pairs that pick each other;
    "greedy" takes the best remaining pair first; "optimal" maximises the total similarity over one-to-one matchings.
    Ties go to the smaller index. All from one exact sweep: C is never formed.

    Args:
        a, b: a `Dictionary`, an address ("demo:local-seed0", a path, …), an array or tensor [n_latents, d_in], a
            mapping {"W_dec": [n_latents, d_in]}, or a SAELens object.
        matching: see above.
        on: compare "decoder" directions, "encoder" directions, or "both" (the mean of the two cosines).
        signed: False compares |cos|, so that a direction and its negative are the same.
        min_similarity: for "optimal": leave a latent unmatched rather than match below this, optimally.
        max_gap, time_budget: for "optimal": stop at this proven relative gap, or after about so many seconds.
        null_draws: random dictionaries, with the moments of these, that a one-to-one matching is also made on, to say
            what chance gives it. None: as many as make 1,000 latents, and none beyond 4,096 latents a side, where each
            draw costs what the matching costs.
        allow_mismatch: go on although model or hook point differ; every output then says so.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; the sweeps are made there, with the
            same answer to the bit.
        progress: called with what is being done and the share of it done, in [0, 1].

    Returns:
        Comparison, with `.a_to_b` and `.b_to_a`.

    Raises:
        ValueError: an unknown matching, a negative number of draws, different widths, or different spaces without
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
    if null_draws is not None and null_draws < 0:
        raise ValueError(f"null_draws is a number of draws, 0 or more; got {null_draws}")
    left, right = distinct([as_dictionary(a), as_dictionary(b)])
    notes = tuple(f"{d.name}: {note}" for d in (left, right) for note in d.notes)
    caveats = notes + require_same_space(left, right, allow_mismatch) + few_latents((left, right), on)
    tick = None if progress is None else lambda share: progress("similarities", share)
    x, y = _operands(left, right, on)
    with running_on(executor):
        swept = sweep(x, y, absolute=not signed, progress=tick)
        plain = _nearest(left, right, swept, on, signed, caveats, null_draws)
        return plain if matching == "nearest" else _with_matching(plain, matching, limits, progress)


def _nearest(
    left: Dictionary,
    right: Dictionary,
    swept: Sweep,
    on: On,
    signed: bool,
    caveats: tuple[str, ...],
    null_draws: int | None,
) -> Comparison:
    """The comparison under "nearest", from a finished sweep."""
    assert swept.cols is not None
    forth = nearest_matching(left, right, swept.rows, on=on, signed=signed)
    back = nearest_matching(right, left, swept.cols, on=on, signed=signed)
    forth, back = with_mutual(forth, back), with_mutual(back, forth)
    draws = default_draws(left.n_latents, right.n_latents) if null_draws is None else null_draws
    return Comparison(
        left, right, "nearest", on, signed, forth, back, forth, back, caveats, None, swept, OptimalLimits(), draws, {}
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
    """`c`, its nearest matchings kept, under another matching; among those `made` if it is whole."""
    forth, back = c.nearest_a_to_b, c.nearest_b_to_a
    if matching == "nearest":
        c.made[matching] = replace(c, matching=matching, a_to_b=forth, b_to_a=back, assignment=None, limits=limits)
        return c.made[matching]
    tick = None if progress is None else lambda step: progress(step.label, step.share)
    x, y = _operands(c.a, c.b, c.on)
    assignment = match(x, y, matching, absolute=not c.signed, nearest=c.swept, progress=tick, **asdict(limits))
    there = one_to_one_matching(forth, back, matching, assignment.partner, assignment.cosine)
    here = one_to_one_matching(back, forth, matching, *assignment.reverse(c.b.n_latents))
    if c.null_draws and not assignment.interrupted:
        chance = _paired_chances(c, matching, limits, progress)
        there, here = replace(there, **chance), replace(here, **chance)
    made = replace(c, matching=matching, a_to_b=there, b_to_a=here, assignment=assignment, limits=limits)
    if limits == OptimalLimits() and not made.was_interrupted:
        c.made[matching] = made
    return made


def _paired_chances(
    c: Comparison, matching: OneToOne, limits: OptimalLimits, progress: Progress | None
) -> dict[str, Any]:
    """What `matching` gives on random dictionaries with the moments of these two, and on isotropic ones."""
    if progress is not None:
        progress(f"chance of {matching}", 0.0)
    forth, back = c.nearest_a_to_b.nearest_chance, c.nearest_b_to_a.nearest_chance
    how: Any = {
        "draws": c.null_draws,
        "absolute": not c.signed,
        "min_similarity": limits.min_similarity,
    }
    d = forth.isotropic_dimensions
    return {
        "paired_chance": paired_chance((back.null, c.a.n_latents), (forth.null, c.b.n_latents), matching, **how),
        "paired_isotropic": None if d is None else paired_isotropic((c.a.n_latents, c.b.n_latents, d), matching, **how),
    }


def _cells(m: Matching) -> tuple[str, ...]:
    return (
        f"{m.source} → {m.target}",
        m.method,
        f"{m.mmcs:.4f}",
        f"{m.n_matched:,} of {m.n_latents:,}",
        f"{m.fraction_above(0.7):.1%}",
        f"{m.coverage:.1%}",
        m.chance_text,
        or_dash(m.corrected, ".3f"),
        or_dash(m.found_fraction, ".1%"),
    )


def _sized(d: Dictionary) -> str:
    return f"{d.name!r} ({d.n_latents:,} × {d.d_in:,})"
