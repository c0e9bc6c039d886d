"""Shared latents: found again by their decoder, by their encoder, and in the same place by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sae_geometry.matching.assignment import Assignment
from sae_geometry.matching.defaults import THRESHOLD

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))


@dataclass(frozen=True, eq=False)
class SharedCurve:
    """How many latents of A are found again in B, as the threshold t rises. A score counts when it is above t.

    Attributes:
        thresholds: float64 [T], the t.
        decoder: int64 [T], latents whose one-to-one decoder score is above t.
        encoder: int64 [T], the same for the encoder's own one-to-one matching.
        both: int64 [T], both at once, whoever the partners are: "shared" as Paulo & Belrose count it.
        both_same_partner: int64 [T], both at once and with the same partner.
        same_partner: latents whose decoder and encoder matchings name the same partner, at any score.
        n_pairs: min(n, m), the pairs that can be made: what shares are out of.
    """

    thresholds: Float64[np.ndarray, " T"]
    decoder: Int64[np.ndarray, " T"]
    encoder: Int64[np.ndarray, " T"]
    both: Int64[np.ndarray, " T"]
    both_same_partner: Int64[np.ndarray, " T"]
    same_partner: int
    n_pairs: int


def shared_latents(decoder: Assignment, encoder: Assignment, t: float = THRESHOLD) -> Bool[np.ndarray, " n"]:
    """bool [n]: one-to-one decoder score > t *and* one-to-one encoder score > t, the partners not compared.

    The definition of G. Paulo, N. Belrose, Sparse autoencoders trained on the same data learn different features
    (2025), with t = 0.7. Scores are cosines, or absolute cosines if the matchings are of those. Ask `same_partner` for
    whether the two matchings also agree.

    Args:
        decoder, encoder: one-to-one matchings of the same two dictionaries, made on decoders and on encoders.
        t: the threshold, strict.

    Raises:
        ValueError: matchings of different numbers of latents, or one signed and one absolute.

    Example:
        >>> import torch
        >>> from sae_geometry.matching import match, shared_latents
        >>> same = match(torch.eye(2), torch.eye(2), "optimal")
        >>> shared_latents(same, same).tolist()
        [True, True]
    """
    _check(decoder, encoder)
    return (np.nan_to_num(decoder.score, nan=-np.inf) > t) & (np.nan_to_num(encoder.score, nan=-np.inf) > t)


def same_partner(decoder: Assignment, encoder: Assignment) -> Bool[np.ndarray, " n"]:
    """bool [n]: decoder's and encoder's matching give the latent the same partner (false where either has none).

    Raises:
        ValueError: as `shared_latents`.
    """
    _check(decoder, encoder)
    return (decoder.partner == encoder.partner) & (decoder.partner >= 0)


def shared_curve(
    decoder: Assignment, encoder: Assignment, *, n_columns: int, thresholds: Sequence[float] = THRESHOLDS
) -> SharedCurve:
    """The counts of `SharedCurve` over a sweep of thresholds.

    Args:
        decoder, encoder: as `shared_latents`.
        n_columns: m, the latents of B.
        thresholds: the t, any number, in the order wanted.

    Raises:
        ValueError: as `shared_latents`.
    """
    agree = same_partner(decoder, encoder)
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


def _check(decoder: Assignment, encoder: Assignment) -> None:
    if decoder.partner.shape != encoder.partner.shape:
        raise ValueError(
            f"the matchings are of {decoder.partner.size:,} and {encoder.partner.size:,} latents; "
            "both must be of the same dictionary"
        )
    if decoder.absolute != encoder.absolute:
        raise ValueError("one matching is of cosines and the other of absolute cosines; make both the same way")
