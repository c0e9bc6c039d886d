"""Two runs matched one to one and nearest, on decoders and on encoders: what shared fractions and PW-MCC rest on."""

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
    """One of decoder and encoder, for every latent of the first run.

    Attributes:
        partner: int64 [n], row of the one-to-one (optimal, signed) partner; −1 none.
        paired: float64 [n], cosine to it; nan none.
        nearest: float64 [n], cosine to the nearest, double counting allowed.
        back: float64 [m], nearest cosine of each latent of the second run.
        gap: proven relative optimality gap of the matching.
    """

    partner: np.ndarray
    paired: np.ndarray
    nearest: np.ndarray
    back: np.ndarray
    gap: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs; `chance` is the decoder's mean nearest cosine by chance, `paired_chance` that of one-to-one pairs."""

    decoder: Side
    encoder: Side
    chance: float
    paired_chance: float

    @property
    def n_pairs(self) -> int:
        """min(n, m), what shares are out of."""
        return min(len(self.decoder.paired), len(self.decoder.back))

    def shared(self, threshold: float = 0.7) -> float:
        """Share with both one-to-one cosines above the threshold, with any partners: Paulo & Belrose's."""
        return float(((self.decoder.paired > threshold) & (self.encoder.paired > threshold)).sum() / self.n_pairs)

    def shared_nearest(self, threshold: float = 0.7) -> float:
        """The same, double counting allowed: share of the first run's latents with both nearest cosines above it."""
        return float(((self.decoder.nearest > threshold) & (self.encoder.nearest > threshold)).mean())

    def shared_same(self, threshold: float = 0.7) -> float:
        """The same, one-to-one, where decoder and encoder must also name the same partner."""
        high = (self.decoder.paired > threshold) & (self.encoder.paired > threshold)
        return float((high & self.same).sum() / self.n_pairs)

    @property
    def same(self) -> np.ndarray:
        """bool [n]: decoder and encoder matchings name the same partner."""
        return (self.decoder.partner >= 0) & (self.decoder.partner == self.encoder.partner)

    @property
    def same_partner(self) -> float:
        """Share for which they do."""
        return float(self.same.sum() / self.n_pairs)

    @property
    def mmcs(self) -> float:
        """Mean max cosine of decoders, first → second run."""
        return float(self.decoder.nearest.mean())

    @property
    def pw_mcc(self) -> float:
        """Mean signed cosine of the optimal one-to-one pairs of decoders."""
        return float(self.decoder.paired[self.decoder.partner >= 0].mean())


def pair_of(bench: Bench, a: Run, b: Run) -> Pair:
    """Both matchings of two runs, made once.

    Raises:
        UnavailableError: a run that cannot be had, or has no encoder.
    """

    def make() -> Mapping[str, np.ndarray]:
        left, right = bench.dictionary(a), bench.dictionary(b)
        for d in (left, right):
            if d.encoder_directions is None:
                raise UnavailableError(f"{d.name} has no encoder")
        decoder = sg.compare(left, right, "optimal")
        encoder = sg.compare(left, right, "optimal", on="encoder", turns=0)
        if decoder.was_interrupted or encoder.was_interrupted:
            raise KeyboardInterrupt  # a matching that Ctrl-C cut short is not stored
        chance = np.array([decoder.nearest_a_to_b.chance, decoder.a_to_b.chance])
        return {"chance": chance, **_arrays("decoder", decoder), **_arrays("encoder", encoder)}

    stored = bench.kept("pair", [a, b], make)
    chance, paired_chance = (float(v) for v in stored["chance"])
    return Pair(_side(stored, "decoder"), _side(stored, "encoder"), chance, paired_chance)


def recurrence(widths: list[int], pairs: Mapping[tuple[int, int], Pair], threshold: float = 0.7) -> np.ndarray:
    """float64 [N]: share of all latents of N runs that are shared with exactly 0 … N−1 of the other runs.

    Shared as Paulo & Belrose count it: both one-to-one cosines above the threshold.
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
    gap = (c.certificate() or {}).get("relative_gap", np.nan)
    return {
        f"{what}_partner": c.a_to_b.partner_row,
        f"{what}_paired": c.a_to_b.cosine,
        f"{what}_nearest": c.nearest_a_to_b.cosine,
        f"{what}_back": c.nearest_b_to_a.cosine,
        f"{what}_gap": np.array(gap),
    }


def _side(stored: Mapping[str, np.ndarray], what: str) -> Side:
    return Side(
        partner=stored[f"{what}_partner"],
        paired=stored[f"{what}_paired"],
        nearest=stored[f"{what}_nearest"],
        back=stored[f"{what}_back"],
        gap=float(stored[f"{what}_gap"]),
    )
