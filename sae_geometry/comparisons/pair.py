"""Comparison of two dictionaries in both directions, with and without double counting, from one sweep."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args
from weakref import WeakKeyDictionary

from sae_geometry.comparisons.pair_matchings import (
    OWN_SCALES,
    OptimalLimits,
    pair_operands,
    with_matching,
    without_narrow_margins,
)
from sae_geometry.comparisons.pair_result import Comparison
from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, settings
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.matching import On
from sae_geometry.matching.defaults import THRESHOLD, check_threshold, listed
from sae_geometry.nulls import LISTED, How, OwnCache, default_turns, pair_controls, turned_sweeps
from sae_geometry.pairwise.certainty import certainty
from sae_geometry.pairwise.inputs import distinct
from sae_geometry.pairwise.matching_result import MatchingName, nearest_matching, with_mutual
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.sources import as_dictionary

# A dictionary that takes part in many comparisons is swept against itself only once.
_OWN: WeakKeyDictionary[Dictionary, dict[On, OwnCache]] = WeakKeyDictionary()
_NO_LIMITS = OptimalLimits()
MATCHINGS: tuple[MatchingName, ...] = get_args(MatchingName)


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
    threshold: float = THRESHOLD,
    min_margin: float | None = None,
    control: Any = None,
    allow_mismatch: bool = False,
    names: tuple[str, str] | None = None,
    drop_bad: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two dictionaries: find the partner of every latent in the other dictionary, and their similarity.

    With C = A·Bᵀ over unit decoder directions, "nearest" takes argmax_j C_ij for each i and argmax_i C_ij for each j
    (the mean is MMCS, mean max cosine similarity, in each direction); "mutual" keeps pairs that pick each other;
    "greedy" takes the best remaining pair first; "optimal" maximizes the total similarity over one-to-one matchings.
    Ties go to the smaller index. All matchings use one exact sweep: C is never materialized.

    Args:
        a, b: a `Dictionary`, an address ("demo:local-seed0", a path, …), an array, tensor or DataFrame
            [n_latents, d_in], a mapping {"W_dec": [n_latents, d_in]}, or a SAELens object.
        matching: "nearest", "mutual", "greedy" or "optimal", as described above.
        on: compare "decoder" directions, "encoder" directions, or "both" (the mean of the two cosines).
        signed: False compares |cos|, so that a direction and its negative are equal.
        min_similarity: for "optimal": the minimum similarity of a pair; the matching is optimal under this limit.
        max_gap, time_budget: for "optimal": stop at this certified relative gap, or after about this many seconds.
        turns: number of one-to-one matchings with the turned B, for the null expectation; 0 also skips the matching
            between halves of each dictionary. None means 3 up to 4,096 latents per side and 1 beyond.
        threshold: similarity above which a one-to-one pair is shared, in −1…1.
        min_margin: leave out pairs with a smaller margin (similarity minus that of either's best other candidate).
        control: a dictionary that should share nothing with A and B, such as an SAE of a randomized model, of training
            step 0 or of another layer; A and B are each compared with the control in the same way.
        allow_mismatch: permit different models or hook points; every output then says so.
        names: two labels to show instead of the names of the dictionaries.
        drop_bad: drop zero and non-finite rows of inputs other than a `Dictionary` and record them, instead of raising.
        executor: a `distributed.Client`, "local:N" or a Dask scheduler's address; sweeps run there, with
            bit-identical results.
        progress: called with the current step and its completed fraction, in [0, 1].

    Returns:
        Comparison, with `.a_to_b` and `.b_to_a`.

    Raises:
        ValueError: an unknown matching, a negative number of turns, a threshold out of range, different widths, or
            different spaces without `allow_mismatch`.

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
        raise ValueError(f"min_similarity, max_gap and time_budget require matching='optimal'; got {matching!r}")
    if turns is not None and turns < 0:
        raise ValueError(f"turns (the number of times B is turned) must be 0 or more; got {turns}")
    check_threshold(threshold)
    labels = (None, None) if names is None else names
    if len(labels) != 2:
        raise ValueError(f"names must be two labels, for a and b; got {len(labels)}: {', '.join(map(repr, labels))}")
    if min_margin is not None and not math.isfinite(min_margin):
        raise ValueError(f"min_margin must be a finite difference of two similarities, such as 0.05; got {min_margin}")
    named = [as_dictionary(d, name=name, drop_bad=drop_bad) for d, name in zip((a, b), labels, strict=True)]
    left, right, *others = distinct([*named, *([] if control is None else [as_dictionary(control, drop_bad=drop_bad)])])
    how: dict[str, Any] = {"on": on, "signed": signed, "turns": turns, "threshold": threshold, "progress": progress}
    with settings(executor=executor):
        made = compare_loaded(left, right, matching, limits, allow_mismatch=allow_mismatch, **how)
        with_control = [compare_loaded(x, z, matching, limits, **how) for z in others for x in (left, right)]
        for c in (made, *with_control):
            c.one_to_one(progress)  # The summary shows this matching; compute it while progress is reported.
    if min_margin is not None:
        made, *with_control = (without_narrow_margins(c, min_margin) for c in (made, *with_control))
    return replace(made, against_control=(with_control[0], with_control[1])) if with_control else made


def compare_loaded(
    a: Dictionary,
    b: Dictionary,
    matching: MatchingName = "nearest",
    limits: OptimalLimits = _NO_LIMITS,
    *,
    on: On = "decoder",
    signed: bool = True,
    turns: int | None = None,
    threshold: float = THRESHOLD,
    allow_mismatch: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two dictionaries with distinct names under a single matching; see `compare`.

    Unlike `compare`, compute the one-to-one matching only when it is first requested.
    """
    notes = tuple(f"{d.name}: {note}" for d in (a, b) for note in d.notes)
    caveats = notes + require_same_space(a, b, allow_mismatch, on=on)
    tick = None if progress is None else lambda share: progress("similarities", share)
    x, y = pair_operands(a, b, on)
    swept = listing_sweep(x, y, listed(LISTED, len(x), len(y)), absolute=not signed, progress=tick)
    how = How(not signed, OWN_SCALES[on])
    assert swept.cols is not None
    control_sweeps = turned_sweeps(x, y, swept, how, progress)
    own = [_OWN.setdefault(d, {}).setdefault(on, {}) for d in (a, b)]
    controls = pair_controls(x, y, swept, how, progress, own, control_sweeps)
    forth = nearest_matching(a, b, swept.rows, controls[0], on=on, signed=signed)
    back = nearest_matching(b, a, swept.cols, controls[1], on=on, signed=signed)
    forth, back = with_mutual(forth, back), with_mutual(back, forth)
    caveats += (*forth.doubts, *back.doubts)
    turns = default_turns(len(x), len(y)) if turns is None else turns
    margins = (certainty(forth, swept.rows, swept.cols), certainty(back, swept.cols, swept.rows))
    made = Comparison(
        a, b, "nearest", on, signed, forth, back, forth, back, caveats, None, swept, control_sweeps,
        (own[0][not signed], own[1][not signed]), OptimalLimits(), turns, threshold, {}, margins,
    )  # fmt: skip
    return made if matching == "nearest" else with_matching(made, matching, limits, progress)
