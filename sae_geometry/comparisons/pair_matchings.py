"""Matchings of one pair of dictionaries, all made from a single sweep."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar, get_args

import numpy as np
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import scalars
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.types import Sweep
from sae_geometry.matching import Assignment, On, OneToOne, loss_if_forbidden, match, operands
from sae_geometry.matching.defaults import SMALL, default_matching
from sae_geometry.nulls import OwnLists, TurnedSweeps, own_pairs, turned_pairs
from sae_geometry.pairwise.certainty import Certainty, certainty, with_min_margin
from sae_geometry.pairwise.double_counting import DoubleCounting, double_counting
from sae_geometry.pairwise.matching_result import Matching, MatchingName, one_to_one_matching

P = TypeVar("P", bound="PairMatchings")

# Factors that convert inner products within A and within B to similarities: see `operands`.
OWN_SCALES: dict[On, tuple[float, float]] = {"decoder": (1.0, 1.0), "encoder": (1.0, 1.0), "both": (2.0, 0.5)}
_NEARER = 0.01  # Families are possible if the mean own similarity exceeds the turned control by this much.


@dataclass(frozen=True)
class OptimalLimits:
    """Limits of an optimal matching, as in `compare`: minimum similarity of a pair, maximum gap and time budget."""

    min_similarity: float | None = None
    max_gap: float = 0.0
    time_budget: float = math.inf


@dataclass(frozen=True, eq=False, repr=False)
class PairMatchings:
    """Base class of `Comparison`, which describes the attributes: one sweep of a pair, and the matchings from it."""

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
    control_sweeps: TurnedSweeps
    own_lists: tuple[OwnLists, OwnLists]
    limits: OptimalLimits
    turns: int
    threshold: float
    made: dict[MatchingName, Any]
    certainty: tuple[Certainty, Certainty]
    min_margin: float | None = None
    against_control: tuple[Any, Any] | None = None

    def rematch(self: P, matching: MatchingName, progress: Progress | None = None) -> P:
        """Return the comparison under another matching, without limits. The sweep and all matchings are cached.

        Raises:
            KeyboardInterrupt: Ctrl-C during the matching. (`compare(…, "optimal")` returns the best so far instead.)
        """
        if matching == self.matching and self._is_whole:
            return self
        if matching not in self.made:
            _completed(with_matching(self, matching, OptimalLimits(), progress))
        return self.made[matching]

    @property
    def was_interrupted(self) -> bool:
        """Return whether Ctrl-C ended the optimal matching before it was certified."""
        return self.assignment is not None and self.assignment.interrupted

    @property
    def _is_whole(self) -> bool:
        return self.limits == OptimalLimits() and self.min_margin is None and not self.was_interrupted

    def one_to_one(self: P, progress: Progress | None = None) -> P:
        """Return the one-to-one comparison; by default, optimal up to 4,096 latents per side and greedy beyond."""
        if self.matching != "nearest":
            return self
        paired = self.rematch(self._default_matching, progress)
        return paired if self.min_margin is None else without_narrow_margins(paired, self.min_margin)

    @property
    def _default_matching(self) -> OneToOne:
        return default_matching(self.a.n_latents, self.b.n_latents)

    @property
    def _nearest(self) -> tuple[Matching, Matching]:
        return self.nearest_a_to_b, self.nearest_b_to_a

    @property
    def _paired(self) -> tuple[Matching, Matching]:
        paired = self.one_to_one()
        return paired.a_to_b, paired.b_to_a

    def double_counting(self, progress: Progress | None = None) -> DoubleCounting:
        """Return MMCS in both directions, the mutual, greedy and optimal one-to-one matchings, and the largest hubs.

        All three matchings are computed, whatever the size, and cached. If a matching was not requested, its null
        expectation comes from a single turn of B.
        """
        cached: dict[str, Any] = vars(self)
        if "_counts" not in cached:
            made = [self._counted(m, progress) for m in get_args(OneToOne)]
            cached["_counts"] = double_counting(*self._nearest, [(c.a_to_b, c.b_to_a) for c in made], self.threshold)
        return cached["_counts"]

    def _counted(self: P, matching: OneToOne, progress: Progress | None) -> P:
        if matching in (self.matching, self._default_matching) or matching in self.made:
            return self.rematch(matching, progress)
        once = replace(self, turns=min(self.turns, 1))
        return _completed(with_matching(once, matching, OptimalLimits(), progress, own=False))

    @cached_property
    def _losses_if_forbidden(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lower bounds on the loss in total similarity if a latent's pair is forbidden, float64 [n] and [m]."""
        if self.assignment is None or self.assignment.certificate is None:
            return np.full(self.a.n_latents, np.nan), np.full(self.b.n_latents, np.nan)
        of_a = loss_if_forbidden(*pair_operands(self.a, self.b, self.on), self.assignment)
        back, _ = self.assignment.reverse(self.b.n_latents)
        return of_a, np.where(back >= 0, of_a[back], np.nan)

    @property
    def _counts_cheaply(self) -> bool:
        """Return whether every matching takes only seconds or is already cached."""
        return self._is_whole and (max(self.a.n_latents, self.b.n_latents) <= SMALL or "optimal" in self.made)

    def certificate(self) -> dict[str, Any] | None:
        """Return the optimal matching's certificate as plain values (gap, rounds, certified, …), or None."""
        found = None if self.assignment is None else self.assignment.certificate
        return None if found is None else scalars(found)


def with_matching(
    c: P, matching: MatchingName, limits: OptimalLimits, progress: Progress | None, *, own: bool = True
) -> P:
    """Return `c` under another matching, with the same nearest partners, and cache it in `made` if complete.

    Set `own` to False to skip the null expectation from halves of each dictionary.
    """
    forth, back = c.nearest_a_to_b, c.nearest_b_to_a
    if matching == "nearest":
        return c.made.setdefault(matching, _made(c, matching, forth, back, None, limits))
    tick = None if progress is None else lambda step: progress(step.label, step.share)
    x, y = pair_operands(c.a, c.b, c.on)
    assignment = match(x, y, matching, absolute=not c.signed, nearest=c.swept, progress=tick, **asdict(limits))
    there = one_to_one_matching(forth, back, matching, assignment.partner, assignment.cosine)
    here = one_to_one_matching(back, forth, matching, *assignment.reverse(c.b.n_latents))
    made = _made(c, matching, there, here, assignment, limits)
    if c.turns and not assignment.interrupted:
        made = _with_expected(made, matching, progress, own)
    if own and limits == OptimalLimits() and not made.was_interrupted:
        c.made[matching] = made
    return made


def without_narrow_margins(c: P, least: float) -> P:
    """Return `c` without pairs whose margin is below `least`."""
    forth, back = (with_min_margin(m, s, least) for m, s in zip((c.a_to_b, c.b_to_a), c.certainty, strict=True))
    return replace(c, a_to_b=forth, b_to_a=back, min_margin=least)


def _made(
    c: P, matching: MatchingName, there: Matching, here: Matching, assignment: Assignment | None, limits: OptimalLimits
) -> P:
    rows, cols = c.swept.rows, c.swept.cols
    assert cols is not None
    return replace(
        c,
        matching=matching,
        a_to_b=there,
        b_to_a=here,
        assignment=assignment,
        limits=limits,
        certainty=(certainty(there, rows, cols), certainty(here, cols, rows)),
        min_margin=None,
        against_control=None,
    )


def _with_expected(c: P, method: OneToOne, progress: Progress | None, own: bool) -> P:
    """Add the null expectations of the matching: with the turned B and, if `own`, between halves of each dictionary.

    If neither dictionary's latents are closer to each other than to the other dictionary after turning, there are no
    families, and halves would only repeat the turned expectation.
    """
    tick = (lambda _: None) if progress is None else partial(progress, f"chance of {method}")
    tick(0.0)
    x, y = pair_operands(c.a, c.b, c.on)
    how: Any = {"absolute": not c.signed} | (asdict(c.limits) if method == "optimal" else {})
    expected = turned_pairs(x, y, method, c.turns, threshold=c.threshold, swept=c.control_sweeps, **how)
    of_x = of_y = None
    if own and any(m.own > m.chance + _NEARER for m in c._nearest):
        tick(0.6)
        sides = zip((x, y), OWN_SCALES[c.on], c.own_lists, strict=True)
        of_x, of_y = (own_pairs(z, method, scale=scale, lists=lists, **how) for z, scale, lists in sides)
    tick(1.0)
    return replace(
        c,
        a_to_b=replace(c.a_to_b, expected_pairs=expected, own_pairs=of_x),
        b_to_a=replace(c.b_to_a, expected_pairs=expected, own_pairs=of_y),
    )


def _completed(c: P) -> P:
    if c.was_interrupted:
        raise KeyboardInterrupt
    return c


def pair_operands(a: Dictionary, b: Dictionary, on: On) -> tuple[Tensor, Tensor]:
    """Return the operands of the sweep on A's device.

    Raises:
        ValueError: no encoders, or encoders that read spaces of different widths.
    """
    b = b.to(a.device)
    for d in (a, b):
        if on != "decoder" and d.encoder_directions is None:
            raise ValueError(f'{d.name!r} has no encoder, but on="{on}" needs one; use on="decoder"')
    widths = [d.encoder_directions.shape[1] for d in (a, b) if d.encoder_directions is not None]
    if on != "decoder" and widths[0] != widths[1]:
        raise ValueError(f"the encoders of {a.name!r} and {b.name!r} read {widths[0]} and {widths[1]} dimensions: "
                         'cosines between them are undefined; use on="decoder"')  # fmt: skip
    return operands((a.directions, a.encoder_directions), (b.directions, b.encoder_directions), on)
