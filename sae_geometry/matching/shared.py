"""Shared latents: one-to-one partners above a threshold by decoder, by encoder, and by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from sae_geometry.matching.assignment import Assignment

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))


@dataclass(frozen=True, eq=False)
class SharedCurve:
    """Numbers of latents of A whose one-to-one partners in B score above t, for each threshold t.

    Attributes:
        thresholds: float64 [T], the values of t.
        decoder: int64 [T], latents with a one-to-one decoder score above t.
        encoder: int64 [T], latents with a one-to-one encoder score above t, in the encoder's own matching.
        both: int64 [T], latents with both scores above t, whether or not the partners agree (Paulo & Belrose).
        both_same_partner: int64 [T], latents with both scores above t and the same partner.
        same_partner: latents whose decoder and encoder matchings have the same partner, at any score.
        n_pairs: min(n, m), the denominator of shares.
    """

    thresholds: Float64[np.ndarray, " T"]
    decoder: Int64[np.ndarray, " T"]
    encoder: Int64[np.ndarray, " T"]
    both: Int64[np.ndarray, " T"]
    both_same_partner: Int64[np.ndarray, " T"]
    same_partner: int
    n_pairs: int


def shared_curve(
    decoder: Assignment, encoder: Assignment, *, n_columns: int, thresholds: Sequence[float] = THRESHOLDS
) -> SharedCurve:
    """Count shared latents as in Paulo & Belrose (2025), who use t = 0.7, over a range of thresholds.

    A latent is shared if its decoder score *and* its encoder score exceed t. Scores are cosines, or absolute cosines if
    the matchings are absolute.

    Args:
        decoder, encoder: one-to-one matchings of the same two dictionaries, by decoder and by encoder.
        n_columns: m, the number of latents of B.
        thresholds: values of t, in any number and order.

    Raises:
        ValueError: matchings of different numbers of latents, or one signed and one absolute.
    """
    if decoder.partner.shape != encoder.partner.shape:
        raise ValueError(
            f"the matchings have {decoder.partner.size:,} and {encoder.partner.size:,} latents; "
            "pass two matchings of the same dictionaries"
        )
    if decoder.absolute != encoder.absolute:
        raise ValueError("one matching ranks cosines and the other absolute cosines; use the same for both")
    agree = (decoder.partner == encoder.partner) & (decoder.partner >= 0)
    levels = np.asarray(thresholds, dtype=np.float64)
    dec = np.nan_to_num(decoder.score, nan=-np.inf)[:, None] > levels
    enc = np.nan_to_num(encoder.score, nan=-np.inf)[:, None] > levels
    return SharedCurve(
        thresholds=levels,
        decoder=dec.sum(axis=0),
        encoder=enc.sum(axis=0),
        both=(dec & enc).sum(axis=0),
        both_same_partner=(dec & enc & agree[:, None]).sum(axis=0),
        same_partner=int(agree.sum()),
        n_pairs=min(agree.size, n_columns),
    )
