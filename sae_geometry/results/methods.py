"""Sentences for the methods section of a paper, shared by several commands."""

from __future__ import annotations

from sae_geometry.io.formatting import counted
from sae_geometry.matching.defaults import DISCOVERY_RATE, MatchingName

EXACT = "Cosines are exact: a fast screen lists candidates, float64 decides, and every row is certified."
TURNED = "turned by an orthogonal map that preserves its mean, its principal axes and its inner products"
MEANING = {
    "nearest": "each latent's best partner; partners may be shared (double counting)",
    "mutual": "pairs that pick each other (one-to-one)",
    "greedy": "best remaining pair first (one-to-one)",
    "optimal": "largest total similarity (one-to-one; the assignment problem)",
}
MARGIN = "pairs with a margin below {:g} on either side are left out"
_MATCHED = {
    "nearest": "Each latent was paired with its nearest latent in the other dictionary, in both directions; several "
    "may share one partner.",
    "mutual": "One-to-one partners are mutual nearest neighbors.",
    "greedy": "One-to-one partners were assigned greedily, the most similar remaining pair first.",
    "optimal": "One-to-one partners maximize the total similarity (the assignment problem{proof}).",
}


def measure(on: str, signed: bool) -> str:
    """Return the words for a similarity, such as "the cosine of unit decoder directions"."""
    if on == "both":
        cosine = "the mean of the cosines of unit decoder and unit encoder directions"
        return cosine if signed else f"the absolute value of {cosine}"
    return f"the {'' if signed else 'absolute '}cosine of unit {on} directions"


def matched(matching: MatchingName, gap: float | None = None) -> str:
    """Return a sentence on the matching; `gap` is the relative optimality gap if it stopped early."""
    proof = ", solved to proven optimality" if gap is None else f", stopped within a relative gap of {gap:.2g}"
    return _MATCHED[matching].format(proof=proof)


def by_chance(target: str, turns: int | None = None) -> str:
    """Return a sentence on the null expectation, computed against a turned `target` and averaged over `turns`."""
    times = "" if turns is None else f" ({counted(turns, 'turn')} for one-to-one pairs)"
    return f"Null expectations come from the same computation against {target} {TURNED}{times}."


def significant(decoys: str, rate: float = DISCOVERY_RATE) -> str:
    """Return the sentence that says when a nearest partner is significant, compared with these decoys."""
    return (
        f"A nearest partner is significant if it is closer than {decoys}, at a false discovery rate of {rate:.3g} "
        "(target-decoy competition with the knockoff+ threshold)."
    )


OWN_AND_TURNED = significant("the nearest other latent of its own dictionary and the nearest latent of the turned one")
