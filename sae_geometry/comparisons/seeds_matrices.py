"""Pairwise matrices over N runs, computed from the records of their pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from sae_geometry.comparisons.strata import strata_of_runs
from sae_geometry.dictionary import Dictionary
from sae_geometry.matching import On, OneToOne
from sae_geometry.pairwise.grouping import groups_of, labels_of
from sae_geometry.pairwise.pair_record import N_BANDS, PairRecord

MATRICES = ("mmcs", "shared", "paired", "significant")  # matrices with intervals


@dataclass(frozen=True, eq=False, repr=False)
class SeedMatrices:
    """Pairwise comparison of N runs, as matrices.

    Matrices are [N, N] with the source in rows and the target in columns, nan on the diagonal.

    Attributes:
        runs: the dictionaries.
        matching: the one-to-one matching; if "optimal", `paired` is the PW-MCC.
        on, signed: compared directions, and whether similarity is the cosine or its absolute value.
        threshold: a latent is *found* in another run if the similarity to its one-to-one partner exceeds this.
        pairs: one record per unordered pair (i, j), i < j.
        caveats: allowed mismatches and unknown spaces.
    """

    runs: tuple[Dictionary, ...]
    matching: OneToOne
    on: On
    signed: bool
    threshold: float
    pairs: Mapping[tuple[int, int], PairRecord]
    caveats: tuple[str, ...]

    @property
    def n_runs(self) -> int:
        """Return the number of runs."""
        return len(self.runs)

    @property
    def names(self) -> list[str]:
        """Return the names of the runs."""
        return [d.name for d in self.runs]

    @property
    def labels(self) -> list[str]:
        """Return the display name of each run, with the seed if it is known and not part of the name."""
        return labels_of(self.runs)

    @cached_property
    def groups(self) -> list[str]:
        """Return the group of each run: its kind, and its layer if the runs have several layers."""
        return groups_of(self.runs)

    @cached_property
    def mmcs(self) -> np.ndarray:
        """Return MMCS(i → j), the mean over i's latents of the largest similarity to any latent of j."""
        return self._directed("mmcs")

    @cached_property
    def significant_in(self) -> tuple[np.ndarray, ...]:
        """Return the number of other runs in which each latent's nearest partner is significant, int64 [n] per run."""
        counts = tuple(np.zeros(d.n_latents, dtype=np.int64) for d in self.runs)
        for (i, j), pair in self.pairs.items():
            first, second = np.split(pair.significant_latents, [self.runs[i].n_latents])
            counts[i][:] += first
            counts[j][:] += second
        return counts

    @cached_property
    def chance(self) -> np.ndarray:
        """Return the null expectation of MMCS(i → j), computed against the turned run j."""
        return self._directed("chance")

    @cached_property
    def isotropic_chance(self) -> np.ndarray:
        """Return the expected MMCS(i → j) against the same number of isotropic directions."""
        return self._directed("isotropic")

    @cached_property
    def significant(self) -> np.ndarray:
        """Return the share of i's latents with a significant nearest latent in j (FDR 5%)."""
        return self._directed("significant")

    @cached_property
    def beyond(self) -> np.ndarray:
        """Return a lower bound on the share of i's latents whose partner in j no control explains: 2 · wins − 1."""
        return self._directed("beyond")

    @cached_property
    def own(self) -> np.ndarray:
        """Return the mean similarity of i's latents to the nearest other latent of i; the same for all j."""
        return self._directed("own")

    @cached_property
    def shared(self) -> np.ndarray:
        """Return the share of i's latents whose similarity to their one-to-one partner in j exceeds the threshold."""
        counts = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            counts[i, j] = counts[j, i] = np.sum(pair.similarity > self.threshold)
        return counts / np.array([[d.n_latents] for d in self.runs])

    @cached_property
    def shared_chance(self) -> np.ndarray:
        """Return an upper bound on the null expectation of `shared`, computed against the turned run j.

        The bound is the share of i's latents whose *nearest* latent of the turned run is above the threshold; no
        one-to-one partner is closer than the nearest.
        """
        return self._directed("nearest_above_chance")

    @cached_property
    def shared_by_both(self) -> np.ndarray:
        """Return the share of i's latents whose one-to-one decoder *and* encoder similarities exceed the threshold.

        The two matchings are separate (Paulo & Belrose 2025). The value is nan if a run has no encoder.
        """
        return self._with_encoders(lambda dec, enc, same: (dec > self.threshold) & (enc > self.threshold))

    @cached_property
    def same_partner(self) -> np.ndarray:
        """Return the share of i's latents with the same decoder and encoder partner in j; nan if one is missing."""
        return self._with_encoders(lambda dec, enc, same: same)

    @cached_property
    def paired(self) -> np.ndarray:
        """Return the symmetric mean similarity of the one-to-one pairs: the PW-MCC if the matching is optimal."""
        return self._directed("paired")

    @cached_property
    def paired_chance(self) -> np.ndarray:
        """Return the symmetric null expectation of `paired`, computed against the turned second run."""
        return self._directed("paired_chance")

    @property
    def paired_name(self) -> str:
        """Return "PW-MCC" for an optimal matching, else a name like "mean of greedy pairs"."""
        return "PW-MCC" if self.matching == "optimal" else f"mean of {self.matching} pairs"

    @cached_property
    def recurrence(self) -> np.ndarray:
        """Return the number of latents of run i found in exactly k other runs, int64 [i, k] for k = 0 … N−1."""
        times = (self._partners[1] > self.threshold).sum(axis=1)
        each = np.split(times, self._starts[1:-1])
        return np.stack([np.bincount(t, minlength=self.n_runs) for t in each]).astype(np.int64)

    @cached_property
    def recurrence_shares(self) -> np.ndarray:
        """Return the share of all latents found in exactly 0 … N−1 other runs, float64 [N]."""
        total = self.recurrence.sum(axis=0)
        return np.asarray(total / total.sum())

    @cached_property
    def _partners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return partner rows int32 [L, N] (−1 for none) and similarities float64 [L, N] of all latents, run by run."""
        shape = (sum(d.n_latents for d in self.runs), self.n_runs)
        rows, similarity = np.full(shape, -1, dtype=np.int32), np.full(shape, np.nan)
        starts = self._starts
        for (i, j), pair in self.pairs.items():
            there = np.flatnonzero(pair.partner >= 0)
            own, other = slice(starts[i], starts[i + 1]), starts[j] + pair.partner[there]
            rows[own, j], similarity[own, j] = pair.partner, pair.similarity
            rows[other, i], similarity[other, i] = there, pair.similarity[there]
        return rows, similarity

    @cached_property
    def _starts(self) -> np.ndarray:
        """Return the offset of each run's latents among all latents, int64 [N + 1]."""
        return np.cumsum([0, *(d.n_latents for d in self.runs)])

    def _strata(self) -> pd.DataFrame:
        """Return the strata of all latents by firing frequency: see `strata_of_runs`."""
        sums = np.zeros((self.n_runs, N_BANDS, 2))
        for (i, j), pair in self.pairs.items():
            sums[[i, j]] += pair.bands
        return strata_of_runs(self.runs, self._partners[1], self.threshold, sums)

    def _titled(self) -> tuple[tuple[str, np.ndarray, str], ...]:
        """Return the title, values and number format of each matrix in `details`."""
        return (
            ("MMCS, row → column (double counting allowed)", self.mmcs, ".3f"),
            ("MMCS expected by chance: the row against the turned column", self.chance, ".3f"),
            (
                "share of the row's latents with a significant nearest latent in the column (5% false discoveries)",
                self.significant,
                ".1%",
            ),
            (f"{self.paired_name} (one-to-one)", self.paired, ".3f"),
            (
                f"share of the row's latents with a one-to-one partner > {self.threshold:g} in the column",
                self.shared,
                ".1%",
            ),
            (
                f"expected by chance, at most: share with any latent of the turned column > {self.threshold:g}",
                self.shared_chance,
                ".2%",
            ),
        )

    def _matrix(self, what: str) -> np.ndarray:
        if what not in MATRICES:
            raise ValueError(f"what (the matrix) must be one of {', '.join(MATRICES)}; got {what!r}")
        return np.asarray(getattr(self, what))

    def _directed(self, name: str) -> np.ndarray:
        """Return the matrix of one field of the pair records, which holds one value per direction or one for both."""
        out = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            out[i, j], out[j, i] = np.broadcast_to(getattr(pair, name), 2)
        return out

    def _with_encoders(self, holds: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        out = np.full((self.n_runs, self.n_runs), np.nan)
        for (i, j), pair in self.pairs.items():
            if len(pair.encoder_partner):
                same = (pair.partner >= 0) & (pair.partner == pair.encoder_partner)
                count = float(holds(pair.similarity, pair.encoder_similarity, same).sum())
                out[i, j], out[j, i] = count / self.runs[i].n_latents, count / self.runs[j].n_latents
        return out
