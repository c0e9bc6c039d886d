"""Tokens that mark the regions of a layout, with a test of each region against the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sae_geometry.dictionary import Dictionary

_MOST = 5  # maximum number of marks per region
_TESTED = 200  # number of tokens tested per region, the most frequent first
_FEWEST = 3  # minimum number of latents in the region that promote the token
ALPHA = 0.05
TEST = (
    f"hypergeometric test of whether a larger share of the region's latents than of the other regions' latents has the "
    f"token among their top tokens, Benjamini–Hochberg over all tokens and regions, q ≤ {ALPHA:g}. Latents are not "
    "independent draws, so q is a yardstick, not a probability"
)


@dataclass(frozen=True)
class Mark:
    """A token that marks a region.

    Attributes:
        inside, size: number of the region's latents with the token among their top tokens, and of all its latents.
        outside, others: the same two counts over all other regions together.
        q_value: q-value of the test that `TEST` describes.
    """

    token: str
    inside: int
    size: int
    outside: int
    others: int
    q_value: float


def region_marks(
    letters: np.ndarray, dictionaries: Sequence[Dictionary], owner: np.ndarray, latent_id: np.ndarray
) -> dict[str, tuple[Mark, ...]]:
    """Return the tokens that mark each region, by increasing q-value; an empty dict if no run has tokens.

    Only latents that have tokens and lie in a region are counted. Spaces around tokens are ignored.

    Args:
        letters: object [N], region of each point; None outside all regions.
        owner, latent_id: int64 [N], run and original id of each point.
    """
    from scipy.stats import false_discovery_control, hypergeom

    texts = _words(dictionaries, owner, latent_id)
    members = {
        letter: [i for i in np.flatnonzero(letters == letter) if texts[i]] for letter in sorted({*letters} - {None})
    }
    everywhere = Counter(token for rows in members.values() for i in rows for token in texts[i])
    total = sum(map(len, members.values()))
    tests = []
    for letter, rows in members.items():
        counts = Counter(token for i in rows for token in texts[i])
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_TESTED]
        tests += [(letter, token, n, len(rows)) for token, n in common if n >= _FEWEST and len(rows) < total]
    if not tests:
        return {}
    inside, size = (np.array([test[at] for test in tests]) for at in (2, 3))
    seen = np.array([everywhere[test[1]] for test in tests])
    q = false_discovery_control(hypergeom.sf(inside - 1, total, seen, size))
    marks: dict[str, list[Mark]] = {}
    for at in np.lexsort((-inside, q)):
        (letter, token, n, of), value = tests[at], q[at]
        if value <= ALPHA and len(marks.setdefault(letter, [])) < _MOST:
            marks[letter].append(Mark(token, n, of, everywhere[token] - n, total - of, float(value)))
    return {letter: tuple(found) for letter, found in marks.items()}


def _words(dictionaries: Sequence[Dictionary], owner: np.ndarray, latent_id: np.ndarray) -> list[set[str]]:
    """Return the set of top tokens of each point, stripped of spaces; an empty set if its tokens are unknown."""
    out: list[set[str]] = [set() for _ in owner]
    for r, d in enumerate(dictionaries):
        rows = np.flatnonzero(owner == r)
        if d.labels is not None and "tokens" in d.labels.frame:
            for i, tokens in zip(rows, d.labels.for_ids(latent_id[rows])["tokens"], strict=True):
                if isinstance(tokens, list | tuple | np.ndarray):
                    out[i] = {str(t).strip() for t in tokens} - {""}
    return out
