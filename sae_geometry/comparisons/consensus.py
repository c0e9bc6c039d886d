"""Consensus groups of latents that match each other in several runs, and orphans, the latents in no group."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.atomic_folder import whole_file
from sae_geometry.io.formatting import ends
from sae_geometry.kernels.loops.jit import compiled
from sae_geometry.labels.pairs import PairLabels, pair_labels
from sae_geometry.pairwise.same_space import model_key, place_key

COLUMNS = ("group", "n_runs", "mean_similarity", "lowest_similarity")  # followed by one column per run
_FOUND = ("in every run", "in several runs", "in one run")
_EXPLAINED = 0.01  # maximum share of the links between two runs that the runs' own latents may explain
_ENOUGH_WINS = 20  # minimum number of partners that are more similar than every own latent


@dataclass(frozen=True, eq=False, repr=False)
class Consensus:
    """Groups of latents from different runs whose pairs are all one-to-one partners above a similarity level.

    Groups are cycle-consistent: following partners from a member through any of the group's runs leads back to it.

    Attributes:
        runs: the dictionaries.
        members: int64 [G, N], row of the group's latent in each run, −1 if the group has none there; sorted by the
            number of members, then by mean similarity, both in descending order.
        similarity: float64 [G], mean similarity over the pairs within the group.
        lowest: float64 [G], smallest similarity over the pairs within the group.
        level: float64 [N, N], the similarity above which partners of two runs were linked; nan on the diagonal.
    """

    runs: tuple[Dictionary, ...]
    members: np.ndarray
    similarity: np.ndarray
    lowest: np.ndarray
    level: np.ndarray

    @cached_property
    def occupancy(self) -> np.ndarray:
        """Return the number of runs in each group, from 2 to N, int64 [G]."""
        return (self.members >= 0).sum(axis=1)

    @cached_property
    def member_ids(self) -> np.ndarray:
        """Return `members` as original latent ids, int64 [G, N]; −1 where a run has no member."""
        ids = zip((run.latent_ids.cpu().numpy() for run in self.runs), self.members.T, strict=True)
        return np.stack([np.where(rows >= 0, own[rows], -1) for own, rows in ids], axis=1)

    @cached_property
    def orphans(self) -> tuple[np.ndarray, ...]:
        """Return, for each run, the original ids of the latents that are in no group."""
        ids = zip((run.latent_ids.cpu().numpy() for run in self.runs), self.members.T, strict=True)
        return tuple(np.delete(own, rows[rows >= 0]) for own, rows in ids)

    @cached_property
    def incidence(self) -> np.ndarray:
        """Return the number of groups in exactly 1, 2, … N runs, int64 [N]; an orphan counts as a group in one run."""
        counts = np.bincount(self.occupancy, minlength=len(self.runs) + 1)[1:]
        counts[0] += sum(map(len, self.orphans))
        return counts

    def directions(self) -> np.ndarray:
        """Return the normalized mean of the members' unit decoder directions, float32 [G, d]."""
        return _mean_directions([d.directions.cpu().numpy() for d in self.runs], self.members)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per group: group, n_runs, mean_similarity, lowest_similarity, latent id per run (or −1)."""
        own = (np.arange(len(self.members)), self.occupancy, self.similarity, self.lowest)
        groups = pd.DataFrame(dict(zip(COLUMNS, own, strict=True)))
        return pd.concat([groups, pd.DataFrame(self.member_ids, columns=[d.name for d in self.runs])], axis=1)

    def orphans_table(self) -> pd.DataFrame:
        """Return one row per latent that is in no group: run, latent_id."""
        runs = np.repeat([d.name for d in self.runs], [len(o) for o in self.orphans])
        return pd.DataFrame({"run": runs, "latent_id": np.concatenate(self.orphans)})

    def save(self, path: str | os.PathLike[str], *, min_runs: int = 2) -> Path:
        """Write the groups as a dictionary to a `.safetensors` file that `load` can read.

        Tensors: W_dec float32 [G, d], W_enc likewise if all runs have encoders of the same width, members int64
        [G, N] (original ids, −1 if there is none), n_runs [G], similarity float32 [G].

        Args:
            path: path of the file; its folder must exist.
            min_runs: minimum number of runs per group.

        Raises:
            ValueError: no group spans `min_runs` runs, or the file name does not end in .safetensors.
        """
        from safetensors.numpy import save

        target = Path(path)
        if target.suffix != ".safetensors":
            raise ValueError(f"a consensus dictionary must be saved as a .safetensors file; got {target.name!r}")
        kept = self.occupancy >= min_runs
        if not kept.any():
            raise ValueError(f"no group of latents spans {min_runs} runs; lower min_runs")
        tensors = {
            "W_dec": self.directions()[kept],
            "members": self.member_ids[kept],
            "n_runs": self.occupancy[kept],
            "similarity": self.similarity[kept].astype(np.float32),
        }
        encoders = [d.encoder_directions for d in self.runs]
        known = [e.cpu().numpy() for e in encoders if e is not None]
        if len(known) == len(self.runs) and len({e.shape[1] for e in known}) == 1:
            tensors["W_enc"] = _mean_directions(known, self.members)[kept]
        tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        with whole_file(target) as file:  # safetensors cannot open a name that is not UTF-8.
            file.write(save(tensors, metadata=self._facts(min_runs)))
        return target

    def _facts(self, min_runs: int) -> dict[str, str]:
        facts = {
            "name": "consensus",
            "runs": json.dumps([{k: getattr(d, k) for k in ("name", "address", "fingerprint")} for d in self.runs]),
            "threshold": self._levels,
            "min_runs": f"{min_runs}",
        }
        for fact, key in (("model", model_key), ("hook_point", place_key)):
            said, values = getattr(self.runs[0], fact), {key(d) for d in self.runs}
            if len(values) == 1 and said is not None:  # Runs may spell a fact differently; the first spelling is saved.
                facts[fact] = said
        return facts

    @property
    def _levels(self) -> str:
        """Return the level as text; a range if pairs of runs have different levels."""
        low, high = (f"{value:.3g}" for value in (np.nanmin(self.level), np.nanmax(self.level)))
        return low if low == high else f"{low} to {high}"

    def __repr__(self) -> str:
        shares = ", ".join(ends([f"{int(c):,} in {k + 1}" for k, c in enumerate(self.incidence)]))
        how = f"one-to-one similarity > {self._levels}"
        return f"Consensus of {len(self.runs)} runs ({how}): distinct latents by number of runs: {shares}"


def consensus(
    runs: Sequence[Dictionary], partner: np.ndarray, similarity: np.ndarray, *, threshold: float | np.ndarray
) -> Consensus:
    """Group latents by complete linkage of one-to-one partners.

    Two latents of different runs are linked if they are one-to-one partners with a similarity above the threshold.
    Links are processed from most to least similar (ties by run and row); two groups merge if they share no run and
    *every* latent of one is linked to every latent of the other.

    Args:
        runs: the N dictionaries, with L latents in total, concatenated in this order.
        partner: int32 or int64 [L, N], row of each latent's one-to-one partner in each run; −1 in its own run and
            where there is no partner.
        similarity: float64 [L, N], similarity to each partner; nan where there is no partner.
        threshold: similarity above which partners are linked: one value for all pairs of runs, or float64 [N, N].
    """
    sizes = np.array([d.n_latents for d in runs], dtype=np.int64)
    total, n = int(sizes.sum()), len(runs)
    if partner.shape != (total, n) or similarity.shape != (total, n):
        raise ValueError(
            f"partner and similarity must have shape {total, n}; got {partner.shape} and {similarity.shape}"
        )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    owner = np.repeat(np.arange(n), sizes)
    level = np.full((n, n), threshold, dtype=np.float64)
    np.fill_diagonal(level, np.nan)
    linked = (partner >= 0) & (similarity > level[owner])
    to = np.where(linked, partner + starts[:-1][None, :], -1)  # [L, N], as row numbers over all runs
    left, run = np.nonzero(linked & (owner[:, None] < np.arange(n)[None, :]))
    right = to[left, run]
    order = np.lexsort((right, left, -similarity[left, run]))
    table = np.full((total, n), -1, dtype=np.int64)
    table[np.arange(total), owner] = np.arange(total)
    _link(left[order], right[order], to, np.arange(total), table)
    table = table[(table >= 0).sum(axis=1) > 1]
    rows = np.where(table >= 0, table - starts[:-1][None, :], -1)
    mean, lowest = _within_groups(table, similarity)
    best = np.lexsort((np.arange(len(rows)), -mean, -(rows >= 0).sum(axis=1)))
    return Consensus(tuple(runs), rows[best], mean[best], lowest[best], level)


def consensus_labels(c: Consensus) -> PairLabels | None:
    """Return the labels of every latent and of another member of its group; None if no run has labels."""
    ids, n, names = c.member_ids, len(c.runs), np.array([d.name for d in c.runs], dtype=object)
    frames = []
    for r, run in enumerate(c.runs):
        there = ids[:, r] >= 0
        others = np.where(np.arange(n) == r, -1, ids[there])  # [groups, runs], −1 for the run itself
        other = (others >= 0).argmax(axis=1)
        grouped = {
            "latent_id": ids[there, r],
            "partner_run": names[other],
            "partner_id": others[np.arange(len(others)), other],
            "cosine": c.similarity[there],
            "group": np.where(c.occupancy[there] == n, *_FOUND[:2]),
        }
        alone = {"latent_id": c.orphans[r], "partner_id": -1, "cosine": np.nan, "group": _FOUND[2]}
        frames += [pd.DataFrame(grouped).assign(run=run.name), pd.DataFrame(alone).assign(run=run.name)]
    table = pd.concat(frames, ignore_index=True)
    return pair_labels(table, c.runs, groups=table["group"].to_numpy(), names=_FOUND)


def explained_up_to(similarity: np.ndarray, own: np.ndarray) -> float:
    """Return the similarity above which latents' own dictionaries explain at most 1% of partners.

    Each latent's partner in the other run competes with the nearest other latent of its own dictionary, which is known
    not to be a copy. Latents are ranked by the larger of the two similarities and accepted while 1 plus the wins of own
    latents is at most 1% of the wins of partners (the knockoff+ estimate, Barber & Candès 2015). If none qualify,
    partners above every own latent are accepted, provided there are at least twenty (the estimate is then at most 5%).

    Args:
        similarity: float64 [L], similarity of both runs' latents to their one-to-one partners; nan where there is none.
        own: float64 [L], similarity of each latent to the nearest other latent of its own dictionary; −inf or nan if
            there is none.

    Returns:
        The level; inf if no partners are accepted.
    """
    target, decoy = np.nan_to_num(similarity, nan=-2.0), np.nan_to_num(own, nan=-2.0)
    best, wins = np.maximum(target, decoy), target > decoy
    order = np.lexsort((wins, -best))  # In a tie, losses come before wins.
    wins, best = wins[order], best[order]
    taken = np.flatnonzero(wins & (1 + np.cumsum(~wins) <= _EXPLAINED * np.cumsum(wins)))
    if not len(taken):
        highest = float(decoy.max(initial=-1.0))
        return highest if (target > highest).sum() >= _ENOUGH_WINS else math.inf
    return float(best[taken[-1] + 1]) if taken[-1] + 1 < len(best) else -1.0


@compiled()
def _link(left, right, to, group, table):  # type: ignore[no-untyped-def]
    """Merge groups in place: `group` [L] holds each latent's group, `table` [L, N] each group's row of `to` per run."""
    n = table.shape[1]
    for e in range(len(left)):
        g, h = group[left[e]], group[right[e]]
        if g == h:
            continue
        fits = True
        for r in range(n):
            x = table[g, r]
            if x < 0:
                continue
            if table[h, r] >= 0:
                fits = False
                break
            for s in range(n):
                y = table[h, s]
                if y >= 0 and to[x, s] != y:
                    fits = False
                    break
            if not fits:
                break
        if fits:
            for s in range(n):
                if table[h, s] >= 0:
                    table[g, s] = table[h, s]
                    group[table[h, s]] = g
                    table[h, s] = -1


def _within_groups(table: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the smallest similarity over the pairs within each group."""
    total, lowest = np.zeros(len(table)), np.full(len(table), np.inf)
    for r, s in itertools.combinations(range(table.shape[1]), 2):
        both = np.flatnonzero((table[:, r] >= 0) & (table[:, s] >= 0))
        values = similarity[table[both, r], s]
        total[both] += values
        lowest[both] = np.minimum(lowest[both], values)
    sizes = (table >= 0).sum(axis=1)
    return total / (sizes * (sizes - 1) // 2), lowest


def _mean_directions(sides: Sequence[np.ndarray], members: np.ndarray) -> np.ndarray:
    """Return the normalized mean of each group's unit rows; a zero mean stays zero."""
    total = np.zeros((len(members), sides[0].shape[1]))
    for at, rows in enumerate(sides):
        there = members[:, at] >= 0
        total[there] += rows[members[there, at]]
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(total / np.where(length > 0, length, 1.0), dtype=np.float32)
