"""Hints next to a comparison: ids that correspond, and cosines before a linear map."""

from __future__ import annotations

import re

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.pairwise.mapping import plain_cosines
from sae_geometry.pairwise.matching_result import Matching

SAME_IDS = 0.5  # share of mutual pairs with the same id above which ids are taken to correspond


def hints(a: Dictionary, b: Dictionary, forth: Matching, back: Matching) -> tuple[str, ...]:
    """Return short sentences on linear maps, the nearest pairs before them, and ids that correspond."""
    said = [_mapped_words(letter, d) for letter, d in (("A", a), ("B", b)) if d.unmapped is not None]
    if (plain := plain_means(a, b, forth, back)) is not None:
        said.append(f"before the map the nearest pairs have mean cosines {plain[0]:.4f} and {plain[1]:.4f}")
    if forth.on == "decoder" and (why := _same_ids(a, b, forth)) is not None:
        said.append(f"try compare_by_index (--pairing index): {why}")
    return tuple(said)


def _mapped_words(letter: str, d: Dictionary) -> str:
    return f"{letter} {next(note for note in d.notes if note.startswith('mapped by'))}"


def plain_means(a: Dictionary, b: Dictionary, forth: Matching, back: Matching) -> tuple[float, float] | None:
    """Return the mean cosines of the nearest pairs before a map, both directions; None without a map of one space."""
    there = plain_cosines(a, b, forth.source_ids, forth.partner)
    here = plain_cosines(b, a, back.source_ids, back.partner)
    return None if there is None or here is None else (float(np.nanmean(there)), float(np.nanmean(here)))


def _same_ids(a: Dictionary, b: Dictionary, forth: Matching) -> str | None:
    """Return why latents of the same id seem to correspond; None where they do not."""
    if a.alive.n_total != b.alive.n_total or a.fingerprint == b.fingerprint:
        return None
    files = [(d.address or d.name).rpartition("::") for d in (a, b)]
    if files[0][0] and files[0][0] == files[1][0] and all(re.match(r"(model|layer)=", f[2]) for f in files):
        return "two outputs of the same latents"
    share = float((forth.partner == forth.source_ids)[forth.mutual].mean()) if forth.mutual.any() else 0.0
    return f"{share:.0%} of mutual pairs share ids" if share > SAME_IDS else None
