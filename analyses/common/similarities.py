"""Nearest-neighbor similarities in one direction, for histograms and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

import sae_geometry as sg
from analyses.common.runs import Run
from analyses.common.steps import Bench


@dataclass(frozen=True, eq=False)
class Similarities:
    """Similarity of each latent of a source to the nearest latent of a target, with the mean expected by chance.

    Attributes:
        similarity: float64 [n], nan without a partner.
        chance: mean against the target turned.
        isotropic_chance: mean for isotropic directions.
        alive_known: whether it is known which latents of both sides are alive.
    """

    similarity: np.ndarray
    chance: float
    isotropic_chance: float
    alive_known: bool

    @property
    def n_latents(self) -> int:
        """The number of latents of the source."""
        return len(self.similarity)

    @property
    def mmcs(self) -> float:
        """The mean max cosine similarity."""
        return float(self.similarity[np.isfinite(self.similarity)].mean())

    @property
    def mean_similarity(self) -> float:
        """The mean similarity, which for nearest partners is the MMCS."""
        return self.mmcs

    @property
    def error(self) -> float:
        """The standard error of the mean, over latents."""
        values = self.similarity[np.isfinite(self.similarity)]
        return float(values.std(ddof=1) / np.sqrt(len(values)))


def within(bench: Bench, run: Run) -> Similarities:
    """Compare each latent with the nearest other latent of its own dictionary."""

    def make() -> Mapping[str, np.ndarray]:
        d = bench.dictionary(run)
        return _kept(sg.within(d).nearest, [d])

    return _read(bench.kept("within", [run], make))


def across(bench: Bench, source: Run, target: Run) -> Similarities:
    """Compare each latent of one run with the nearest latent of another, with double counting."""

    def make() -> Mapping[str, np.ndarray]:
        a, b = bench.dictionary(source), bench.dictionary(target)
        return _kept(sg.compare(a, b).a_to_b, [a, b])

    return _read(bench.kept("across", [source, target], make))


def _kept(m: sg.Matching, dictionaries: Sequence[sg.Dictionary]) -> dict[str, np.ndarray]:
    known = all(d.alive.n_dead is not None for d in dictionaries)
    chance = np.array([m.chance, m.isotropic_chance])
    return {"similarity": m.similarity, "chance": chance, "alive_known": np.array(known)}


def _read(arrays: Mapping[str, np.ndarray]) -> Similarities:
    matched, isotropic = (float(v) for v in arrays["chance"])
    return Similarities(arrays["similarity"], matched, isotropic, bool(arrays["alive_known"]))
