"""Consensus: groups of latents that match each other in several runs, at most one a run; and the orphans."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.atomic_folder import umask
from sae_geometry.io.formatting import ends
from sae_geometry.kernels.loops.jit import compiled

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = ("group", "n_runs", "mean_similarity", "lowest_similarity")  # beside one for each run


@dataclass(frozen=True, eq=False, repr=False)
class Consensus:
    """Groups of latents of different runs, every two of which are each other's one-to-one partner above a threshold.

    Groups are cycle-consistent: following partners from any member through any runs of the group returns to it.

    Attributes:
        runs: the dictionaries.
        members: int64 [G, N], the row in each run of the group's latent, −1 where the run has none; groups with more
            members first, then by mean similarity.
        similarity: float64 [G], mean similarity over the pairs within the group.
        lowest: float64 [G], the smallest of them.
        threshold: pairs above it were linked.
    """

    runs: tuple[Dictionary, ...]
    members: np.ndarray
    similarity: np.ndarray
    lowest: np.ndarray
    threshold: float

    @cached_property
    def occupancy(self) -> np.ndarray:
        """int64 [G]: how many runs each group is found in, 2…N."""
        return (self.members >= 0).sum(axis=1)

    @cached_property
    def member_ids(self) -> np.ndarray:
        """int64 [G, N]: `members` as original latent ids, −1 where none."""
        out = np.full_like(self.members, -1)
        for at, run in enumerate(self.runs):
            there = self.members[:, at] >= 0
            out[there, at] = run.latent_ids.cpu().numpy()[self.members[there, at]]
        return out

    @cached_property
    def orphans(self) -> tuple[np.ndarray, ...]:
        """For each run, the original ids of its latents in no group."""
        out = []
        for at, run in enumerate(self.runs):
            left = np.ones(run.n_latents, dtype=bool)
            left[self.members[self.members[:, at] >= 0, at]] = False
            out.append(run.latent_ids.cpu().numpy()[left])
        return tuple(out)

    @cached_property
    def incidence(self) -> np.ndarray:
        """int64 [N]: how many distinct latents were found by exactly 1, 2, … N runs; orphans are found by one."""
        counts = np.bincount(self.occupancy, minlength=len(self.runs) + 1)[1:]
        counts[0] += sum(map(len, self.orphans))
        return counts

    def directions(self) -> np.ndarray:
        """float32 [G, d]: the mean of the members' unit decoder directions, normalised."""
        return _mean_directions([d.directions.cpu().numpy() for d in self.runs], self.members)

    def to_pandas(self) -> pd.DataFrame:
        """One row a group: group, n_runs, mean_similarity, lowest_similarity, then each run's latent id (−1 none)."""
        import pandas as pd

        own = (np.arange(len(self.members)), self.occupancy, self.similarity, self.lowest)
        groups = pd.DataFrame(dict(zip(COLUMNS, own, strict=True)))
        return pd.concat([groups, pd.DataFrame(self.member_ids, columns=[d.name for d in self.runs])], axis=1)

    def orphans_table(self) -> pd.DataFrame:
        """One row a latent in no group: run, latent_id."""
        import pandas as pd

        runs = np.repeat([d.name for d in self.runs], [len(o) for o in self.orphans])
        return pd.DataFrame({"run": runs, "latent_id": np.concatenate(self.orphans)})

    def save(self, path: str | os.PathLike[str], *, min_runs: int = 2) -> Path:
        """Write the groups as a dictionary: a `.safetensors` file that `load` reads.

        Tensors: W_dec float32 [G, d], W_enc likewise where all runs have encoders of one width, members int64 [G, N]
        (original ids, −1 none), n_runs [G], similarity float32 [G].

        Args:
            path: of the file; its folder must exist.
            min_runs: leave out groups found in fewer runs.

        Raises:
            ValueError: no group is found in so many runs, or a name that does not end in .safetensors.
        """
        from safetensors.numpy import save

        target = Path(path)
        if target.suffix != ".safetensors":
            raise ValueError(f"a consensus dictionary is a .safetensors file; got {target.name!r}")
        kept = self.occupancy >= min_runs
        if not kept.any():
            raise ValueError(f"no group of latents is found in {min_runs} runs; a dictionary needs at least one latent")
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
        handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(handle, "wb") as file:  # not by its name, which may be no UTF-8
                file.write(save(tensors, metadata=self._facts(min_runs)))
            os.chmod(aside, 0o666 & ~umask())
            os.replace(aside, target)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        return target

    def _facts(self, min_runs: int) -> dict[str, str]:
        facts = {
            "name": "consensus",
            "runs": json.dumps(
                [{"name": d.name, "address": d.address, "fingerprint": d.fingerprint} for d in self.runs]
            ),
            "threshold": f"{self.threshold:g}",
            "min_runs": f"{min_runs}",
        }
        for key in ("model", "hook_point"):
            values = {getattr(d, key) for d in self.runs}
            if len(values) == 1 and None not in values:
                facts[key] = values.pop()
        return facts

    def __repr__(self) -> str:
        shares = ", ".join(ends([f"{int(c):,} in {k + 1}" for k, c in enumerate(self.incidence)]))
        how = f"one-to-one similarity > {self.threshold:g}"
        return f"Consensus of {len(self.runs)} runs ({how}): distinct latents found by exactly so many runs: {shares}"


def consensus(
    runs: Sequence[Dictionary], partner: np.ndarray, similarity: np.ndarray, *, threshold: float
) -> Consensus:
    """Groups of latents by complete linkage of one-to-one partners.

    Every two latents of different runs that are one-to-one partners with a similarity above the threshold are linked.
    Links are taken from the most similar to the least (ties by run and row); two groups become one where they have no
    run in common and *every* latent of one is linked to every latent of the other.

    Args:
        runs: the N dictionaries; L latents in all, in their order.
        partner: int32 or int64 [L, N], row of each latent's one-to-one partner in each run; −1 for none and in its
            own run.
        similarity: float64 [L, N], of those; nan where none.
        threshold: similarities must be above it.

    Raises:
        ValueError: shapes that do not fit.
    """
    sizes = np.array([d.n_latents for d in runs], dtype=np.int64)
    total, n = int(sizes.sum()), len(runs)
    if partner.shape != (total, n) or similarity.shape != (total, n):
        raise ValueError(f"partners and similarities are [{total}, {n}]; got {partner.shape} and {similarity.shape}")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    owner = np.repeat(np.arange(n), sizes)
    linked = (partner >= 0) & (similarity > threshold)
    to = np.where(linked, partner + starts[:-1][None, :], -1)  # [L, N], latents counted over all runs
    left, run = np.nonzero(linked & (owner[:, None] < np.arange(n)[None, :]))
    right = to[left, run]
    order = np.lexsort((right, left, -similarity[left, run]))
    table = _link(left[order], right[order], owner, to)
    rows = np.where(table >= 0, table - starts[:-1][None, :], -1)
    mean, lowest = _within_groups(table, similarity)
    best = np.lexsort((np.arange(len(rows)), -mean, -(rows >= 0).sum(axis=1)))
    return Consensus(tuple(runs), rows[best], mean[best], lowest[best], threshold)


def _link(left: np.ndarray, right: np.ndarray, owner: np.ndarray, to: np.ndarray) -> np.ndarray:
    """int64 [G, N]: the groups of at least two, as latents counted over all runs."""
    total, n = to.shape
    group = np.arange(total)
    table = np.full((total, n), -1, dtype=np.int64)
    table[np.arange(total), owner] = np.arange(total)
    _link_loop(left, right, to, group, table)
    return np.asarray(table[(table >= 0).sum(axis=1) > 1])


@compiled()
def _link_loop(left, right, to, group, table):  # type: ignore[no-untyped-def]
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
    """Mean and smallest similarity over the pairs of each group."""
    total, lowest = np.zeros(len(table)), np.full(len(table), np.inf)
    count = np.zeros(len(table), dtype=np.int64)
    _within_loop(table, similarity, total, lowest, count)
    return total / np.maximum(count, 1), lowest


@compiled()
def _within_loop(table, similarity, total, lowest, count):  # type: ignore[no-untyped-def]
    for g in range(len(table)):
        members = np.flatnonzero(table[g] >= 0)
        for at in range(len(members)):
            for s in members[at + 1 :]:
                value = similarity[table[g, members[at]], s]
                total[g] += value
                lowest[g] = min(lowest[g], value)
                count[g] += 1


def _mean_directions(sides: Sequence[np.ndarray], members: np.ndarray) -> np.ndarray:
    """The mean of the members' unit rows, normalised; a mean of nothing stays a row of zeros."""
    total = np.zeros((len(members), sides[0].shape[1]))
    for at, rows in enumerate(sides):
        there = members[:, at] >= 0
        total[there] += rows[members[there, at]]
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(total / np.where(length > 0, length, 1.0), dtype=np.float32)
