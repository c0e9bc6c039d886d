"""One-to-one and nearest matchings of two runs by decoder and encoder, for shared fractions and PW-MCC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import sae_geometry as sg
from analyses.common.errors import UnavailableError
from analyses.common.runs import Run
from analyses.common.steps import Bench


@dataclass(frozen=True, eq=False)
class Side:
    """Matchings by decoder or by encoder, for every latent of the first run.

    Attributes:
        partner: int64 [n], row of the one-to-one (optimal, signed) partner; −1 without one.
        paired: float64 [n], cosine to the one-to-one partner; nan without one.
        nearest: float64 [n], cosine to the nearest latent, with double counting.
        back: float64 [m], nearest cosine of each latent of the second run.
    """

    partner: np.ndarray
    paired: np.ndarray
    nearest: np.ndarray
    back: np.ndarray


@dataclass(frozen=True, eq=False)
class Pair:
    """Both matchings of two runs, with the mean decoder cosine expected by chance.

    Attributes:
        decoder, encoder: the matchings.
        chance: mean cosine to the nearest latent expected by chance.
        paired_chance: mean cosine of one-to-one pairs expected by chance.
    """

    decoder: Side
    encoder: Side
    chance: float
    paired_chance: float

    @property
    def n_pairs(self) -> int:
        """The denominator of shares, min(n, m)."""
        return min(len(self.decoder.paired), len(self.decoder.back))

    def shared(self, threshold: float = 0.7) -> float:
        """Return the share with both one-to-one cosines above the threshold, with any partners (Paulo & Belrose)."""
        return float(((self.decoder.paired > threshold) & (self.encoder.paired > threshold)).sum() / self.n_pairs)

    def shared_nearest(self, threshold: float = 0.7) -> float:
        """Return the share of the first run's latents with both nearest cosines above the threshold."""
        return float(((self.decoder.nearest > threshold) & (self.encoder.nearest > threshold)).mean())

    def shared_same(self, threshold: float = 0.7) -> float:
        """Return the share with both one-to-one cosines above the threshold and the same partner by both."""
        high = (self.decoder.paired > threshold) & (self.encoder.paired > threshold)
        return float((high & self.same).sum() / self.n_pairs)

    @property
    def same(self) -> np.ndarray:
        """Whether the decoder and encoder matchings agree on the partner, bool [n]."""
        return (self.decoder.partner >= 0) & (self.decoder.partner == self.encoder.partner)

    @property
    def same_partner(self) -> float:
        """The share of latents whose decoder and encoder matchings agree on the partner."""
        return float(self.same.sum() / self.n_pairs)

    @property
    def mmcs(self) -> float:
        """The mean max cosine of decoders, from the first run to the second."""
        return float(self.decoder.nearest.mean())

    @property
    def pw_mcc(self) -> float:
        """The mean signed cosine of the optimal one-to-one pairs of decoders."""
        return float(self.decoder.paired[self.decoder.partner >= 0].mean())


def pair_of(bench: Bench, a: Run, b: Run) -> Pair:
    """Return both matchings of two runs, stored after the first call.

    Raises:
        UnavailableError: a run cannot be loaded, or has no encoder.
    """

    def make() -> Mapping[str, np.ndarray]:
        left, right = bench.dictionary(a), bench.dictionary(b)
        for d in (left, right):
            if d.encoder_directions is None:
                raise UnavailableError(f"{d.name} has no encoder")
        decoder = sg.compare(left, right, "optimal")
        encoder = sg.compare(left, right, "optimal", on="encoder", turns=0)
        if decoder.was_interrupted or encoder.was_interrupted:
            raise KeyboardInterrupt  # An interrupted matching must not be stored.
        chance = np.array([decoder.nearest_a_to_b.chance, decoder.a_to_b.chance])
        return {"chance": chance, **_arrays("decoder", decoder), **_arrays("encoder", encoder)}

    stored = bench.kept("pair", [a, b], make)
    chance, paired_chance = (float(v) for v in stored["chance"])
    return Pair(_side(stored, "decoder"), _side(stored, "encoder"), chance, paired_chance)


def recurrence(widths: list[int], pairs: Mapping[tuple[int, int], Pair], threshold: float = 0.7) -> np.ndarray:
    """Return the share of all latents of N runs that are shared with exactly 0 … N−1 of the other runs, float64 [N].

    As in Paulo & Belrose, a latent is shared if both one-to-one cosines are above the threshold.
    """
    n_runs = len(widths)
    times = [np.zeros(n, dtype=np.int64) for n in widths]
    for (i, j), pair in pairs.items():
        here = (pair.decoder.paired > threshold) & (pair.encoder.paired > threshold)
        times[i] += here
        high = [np.zeros(widths[j], dtype=bool) for _ in range(2)]
        for side, mask in zip((pair.decoder, pair.encoder), high, strict=True):
            mask[side.partner[side.paired > threshold]] = True
        times[j] += high[0] & high[1]
    total = np.concatenate(times)
    return np.asarray(np.bincount(total, minlength=n_runs) / len(total))


def _arrays(what: str, c: sg.Comparison) -> dict[str, np.ndarray]:
    return {
        f"{what}_partner": c.a_to_b.partner_row,
        f"{what}_paired": c.a_to_b.cosine,
        f"{what}_nearest": c.nearest_a_to_b.cosine,
        f"{what}_back": c.nearest_b_to_a.cosine,
    }


def _side(stored: Mapping[str, np.ndarray], what: str) -> Side:
    return Side(
        partner=stored[f"{what}_partner"],
        paired=stored[f"{what}_paired"],
        nearest=stored[f"{what}_nearest"],
        back=stored[f"{what}_back"],
    )
