"""Feature splitting: the children of a narrow dictionary's latents in a wide dictionary, and novel wide latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import listing_sweep, sweep
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.matching.defaults import DISCOVERY_RATE
from sae_geometry.nulls import LISTED, How, expected_max_cosine, principal_axes, turned, turned_controls
from sae_geometry.pairwise.confounds import confound_audit
from sae_geometry.pairwise.inputs import describe_input, distinct
from sae_geometry.pairwise.matching_result import Matching, nearest_matching
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_TERMS = 4
_NULL_LATENTS = 512
_GONE = 1e-6  # squared residual below which the pursuit ends


@dataclass(frozen=True, eq=False)
class SparseCombination:
    """Sparse non-negative combinations of atoms that approximate each parent, by orthogonal matching pursuit.

    Attributes:
        index: int64 [n, T], the atom selected at each step; −1 once the pursuit has ended.
        coefficient: float64 [n, T], coefficient of each atom in the final combination; 0 where there is no atom.
        explained: float64 [n, T], share of the unit direction p explained by 1…T terms: 1 − ‖p − Σ c_t w_t‖².
    """

    index: np.ndarray
    coefficient: np.ndarray
    explained: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class SplitMap(Answer):
    """Children of each narrow latent in the wide dictionary, and the novel wide latents.

    Attributes:
        narrow, wide: the dictionaries.
        parents: the `Matching` wide → narrow: each wide latent's nearest narrow latent, with its q-value. The only
            control is the turned narrow dictionary: siblings in the wide dictionary result from splitting.
        found: bool [m], whether a wide latent is a child: q-value at most `false_discovery_rate`, and cosine above the
            expected maximum over isotropic directions. The other wide latents are *novel*.
        false_discovery_rate: maximum q-value of a child.
        threshold: smallest cosine among the children; nan if there are no children.
        nearest_child: the `Matching` narrow → wide.
        combination: each narrow direction as a sparse combination of wide directions.
        close: bool [n, T], whether a term of the combination is closer to the narrow latent than any latent of the
            turned wide dictionary.
        explained_by_chance: float64 [L, T], share explained by the turned wide dictionary, for a sample of L narrow
            latents; the null for `combination.explained`.
        caveats: allowed mismatches and unknown spaces.
    """

    narrow: Dictionary
    wide: Dictionary
    parents: Matching
    found: np.ndarray
    false_discovery_rate: float
    threshold: float
    nearest_child: Matching
    combination: SparseCombination
    close: np.ndarray
    explained_by_chance: np.ndarray
    caveats: tuple[str, ...]

    @cached_property
    def n_children(self) -> np.ndarray:
        """Return the number of children per narrow latent, int64 [n]."""
        return np.bincount(self.parents.partner_row[self.found], minlength=self.narrow.n_latents)

    @cached_property
    def n_absorbing(self) -> np.ndarray:
        """Return the number of close terms that are children of *another* narrow latent, int64 [n].

        These terms carry part of the latent's direction without being its children.
        """
        term = self.combination.index
        taken = (term >= 0) & (self.combination.coefficient > 0)
        own = self.parents.partner_row[term] == np.arange(self.narrow.n_latents)[:, None]
        return (taken & self.close & self.found[term] & ~own).sum(axis=1)

    @property
    def n_novel(self) -> int:
        """Return the number of wide latents without a significant parent."""
        return int((~self.found).sum())

    def children(self, latent_id: int) -> list[int]:
        """Return the original ids of the wide children of one narrow latent, closest first."""
        at = np.flatnonzero(self.parents.target_ids == latent_id)
        if len(at) == 0:
            raise ValueError(f"{self.narrow.name!r} has no latent {latent_id} (it may have been dropped as dead)")
        rows = np.flatnonzero(self.found & (self.parents.partner_row == at[0]))
        rows = rows[np.argsort(-self.parents.cosine[rows], kind="stable")]
        return [int(i) for i in self.parents.source_ids[rows]]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per wide latent: wide_id, parent_id, cosine, q_value, role ("child", "novel"), n_siblings."""
        siblings = np.where(self.found, self.n_children[self.parents.partner_row], 0)
        return pd.DataFrame(
            {
                "wide_id": self.parents.source_ids,
                "parent_id": self.parents.partner,
                "cosine": self.parents.cosine,
                "q_value": self.parents.q_value,
                "role": np.where(self.found, "child", "novel"),
                "n_siblings": siblings,
            }
        )

    def parents_table(self) -> pd.DataFrame:
        """Return one row per narrow latent, with its children and its sparse combination.

        Columns: narrow_id, n_children, n_absorbing, nearest_wide_id, nearest_cosine; for each term t of the sparse
        combination, term_t_id, term_t_coefficient and explained_t.
        """
        columns: dict[str, Any] = {
            "narrow_id": self.parents.target_ids,
            "n_children": self.n_children,
            "n_absorbing": self.n_absorbing,
            "nearest_wide_id": self.nearest_child.partner,
            "nearest_cosine": self.nearest_child.cosine,
        }
        ids = self.parents.source_ids
        for t in range(self.combination.index.shape[1]):
            index = self.combination.index[:, t]
            columns[f"term_{t + 1}_id"] = np.where(index >= 0, ids[index], -1)
            columns[f"term_{t + 1}_coefficient"] = self.combination.coefficient[:, t]
            columns[f"explained_{t + 1}"] = self.combination.explained[:, t]
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        """Return the counts of children and novel latents, shares explained and caveats as a JSON-ready dict."""
        counts, chance = np.bincount(np.minimum(self.n_children, 5), minlength=6), self.explained_by_chance
        return {
            "inputs": {"narrow": describe_input(self.narrow), "wide": describe_input(self.wide)},
            "confounds": confound_audit(self.narrow, self.wide).summary(),
            "child_means": "a wide latent whose signed decoder cosine to its nearest narrow latent, its parent, is "
            "higher than the turned narrow dictionary explains and than the nearest isotropic direction on average",
            "false_discovery_rate": self.false_discovery_rate,
            "smallest_cosine_of_a_child": self.threshold,
            "wide_to_narrow": self.parents.summary(),
            "narrow_to_wide": self.nearest_child.summary(),
            "n_children": int(self.found.sum()),
            "n_novel": self.n_novel,
            "narrow_latents_with_this_many_children": {
                f"{k}" if k < 5 else "5 or more": int(c) for k, c in enumerate(counts)
            },
            "absorbing_means": "a term of a narrow latent's sparse combination that is closer to it than expected by "
            "chance and is a child of another narrow latent",
            "narrow_latents_with_absorbing_wide_latents": int((self.n_absorbing > 0).sum()),
            "explained_means": "mean share of a narrow direction explained by 1, 2, … wide directions with "
            "non-negative coefficients (orthogonal matching pursuit)",
            "explained": self.combination.explained.mean(axis=0).tolist(),
            "explained_by_chance": self.explained_by_chance.mean(axis=0).tolist(),
            "narrow_latents_in_the_null": len(chance),
            **label_summary(self.meanings),
            "caveats": list(self.caveats),
        }

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the tables to save: split (one row per wide latent), parents (one row per narrow latent)."""
        return {"split": self.to_pandas(), "parents": self.parents_table()}

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of children and their parents, and of novel latents."""
        table = self.parents.to_pandas().assign(significant=self.found)
        return pair_labels(table, self.dictionaries, names=("closest children", "other children", "novel"))

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: splitting."""
        from sae_geometry import plots

        return {"splitting": plots.splitting_figure(self)}

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """Return the narrow and the wide dictionary."""
        return (self.narrow, self.wide)

    @property
    def method(self) -> str:
        narrow, wide, n_terms = self.narrow.name, self.wide.name, self.combination.index.shape[1]
        return (
            f"For each latent of {wide} we found the nearest latent of {narrow} by {methods.measure('decoder', True)}. "
            f"{methods.significant(f'the nearest latent of the turned {narrow}', self.false_discovery_rate)} A nearest "
            "latent is the parent if it is significant and closer than the nearest of as many isotropic directions is "
            f"expected to be; a latent without a parent is novel. Each direction of {narrow} was approximated by a "
            f"non-negative combination of up to {n_terms} directions of {wide} (orthogonal matching pursuit). "
            f"{methods.EXACT} {methods.by_chance(wide)}"
        )

    @property
    def sentences(self) -> str:
        return (
            f"{int(self.found.sum()):,} of {counted(self.wide.n_latents, 'latent')} of {self.wide.name} are children "
            f"of a latent of {self.narrow.name}, and {self.n_novel:,} are novel. Of "
            f"{counted(self.narrow.n_latents, 'narrow latent')}, {int((self.n_children > 1).sum()):,} have several "
            f"children and {int((self.n_children == 0).sum()):,} have none."
        )

    def _lines(self) -> list[str]:
        n = self.narrow.n_latents
        split, kept, none = (int(x.sum()) for x in (self.n_children > 1, self.n_children == 1, self.n_children == 0))
        rows = [("terms", *(f"{t + 1}" for t in range(self.combination.explained.shape[1])))]
        rows.append(("explained", *(f"{v:.1%}" for v in self.combination.explained.mean(axis=0))))
        rows.append(("by chance", *(f"{v:.1%}" for v in self.explained_by_chance.mean(axis=0))))
        return [
            f"Splitting of {shown(self.narrow.name, 60)!r} ({counted(n, 'latent')}) in {shown(self.wide.name, 60)!r} "
            f"({self.wide.n_latents:,})",
            f"  wide latents: children {int(self.found.sum()):,}, novel {self.n_novel:,} "
            f"({self.false_discovery_rate:.0%} false discoveries)",
            f"  narrow latents: {split:,} with several children, {kept:,} with one, {none:,} with none",
            f"  {counted(int((self.n_absorbing > 0).sum()), 'narrow latent')} partly absorbed",
            "  share of a narrow direction explained by a non-negative combination:",
            *(f"    {line}" for line in aligned(rows)),
        ]

    def _definitions(self) -> list[str]:
        farthest = f"; the lowest cosine is {self.threshold:.3f}" if self.found.any() else ""
        return [
            f"  children: closer to their parent than expected by chance{farthest}",
            "  partly absorbed: another latent's child is a close term of the latent's combination",
            *(f"  {d.name}: {d.alive.describe()}" for d in self.dictionaries),
        ]


def split(
    narrow: Any,
    wide: Any,
    *,
    false_discovery_rate: float = DISCOVERY_RATE,
    n_terms: int = N_TERMS,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> SplitMap:
    """Map a narrow dictionary's latents to a wide dictionary: children, absorption, novel latents.

    Each wide latent's *parent* is its nearest narrow latent, argmax_i cos(narrow_i, wide_j); it is a *child* if that
    cosine wins against the turned narrow dictionary (target-decoy competition with a controlled false discovery rate)
    and exceeds what the nearest of as many isotropic directions reaches on average, and *novel* otherwise. Each narrow
    direction p is then approximated by Σ c_t w_t, c ≥ 0, over at most `n_terms` wide directions by orthogonal matching
    pursuit: the next w has the largest inner product with the residual (by an exact sweep over the dictionary), and all
    coefficients are refitted. The share explained is 1 − ‖p − Σ c_t w_t‖²; its null expectation comes from the turned
    wide dictionary.

    Args:
        narrow, wide: anything `compare` takes; `narrow` must not have more latents than `wide`.
        false_discovery_rate: false discovery rate among the children, in (0, 1).
        n_terms: maximum number of terms T, at least 1.
        allow_mismatch: permit different models or hook points; every output then says so.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: more narrow than wide latents, n_terms below 1, a rate outside (0, 1), or different spaces.

    Example:
        >>> import sae_geometry as sg
        >>> s = sg.split("demo:local-narrow-seed0", "demo:local-seed0")
        >>> s.n_novel + int(s.found.sum()) == s.wide.n_latents
        True
    """
    small, large = distinct([as_dictionary(narrow), as_dictionary(wide)])
    if small.n_latents > large.n_latents:
        raise ValueError(
            f"the first dictionary must be the narrow one, but {small.name!r} has "
            f"{counted(small.n_latents, 'latent')} and {large.name!r} has {large.n_latents:,}; swap the two"
        )
    if n_terms < 1:
        raise ValueError(f"n_terms (the maximum number of terms in a combination) must be at least 1; got {n_terms}")
    if not 0 < false_discovery_rate < 1:
        raise ValueError(f"false_discovery_rate must lie between 0 and 1; got {false_discovery_rate}")
    notes = tuple(f"{d.name}: {note}" for d in (small, large) for note in d.notes)
    caveats = notes + require_same_space(small, large, allow_mismatch)
    large = large.to(small.device)
    tick = None if progress is None else lambda share: progress("similarities", share)
    swept = listing_sweep(large.directions, small.directions, LISTED, progress=tick)
    assert swept.cols is not None
    forth, back = turned_controls(large.directions, small.directions, swept, How(), progress)
    parents = nearest_matching(large, small, swept.rows, forth)
    nearest_child = nearest_matching(small, large, swept.cols, back)
    least = expected_max_cosine(small.n_latents, small.d_in)
    found = (parents.q_value <= false_discovery_rate) & (parents.cosine > least)
    caveats += parents.doubts
    threshold = float(parents.cosine[found].min()) if found.any() else float("nan")
    combination = sparse_combinations(small.directions, large.directions, n_terms, progress=progress)
    return SplitMap(
        narrow=small,
        wide=large,
        parents=parents,
        found=found,
        false_discovery_rate=false_discovery_rate,
        threshold=threshold,
        nearest_child=nearest_child,
        combination=combination,
        close=_close(small, large, combination, back.turned),
        explained_by_chance=_explained_by_chance(small.directions, large.directions, n_terms),
        caveats=caveats,
    )


def sparse_combinations(
    parents: Tensor, atoms: Tensor, n_terms: int, *, progress: Progress | None = None
) -> SparseCombination:
    """Approximate each parent by a non-negative combination of at most `n_terms` atoms.

    In orthogonal matching pursuit, each step selects the atom with the largest inner product with the residual (the
    first in a tie) by an exact sweep; the coefficients of all selected atoms are then refitted by non-negative least
    squares. The pursuit ends when all inner products are zero or negative. All rows must have unit length.
    """
    p = parents.double().cpu().numpy()
    w = atoms.cpu().numpy()
    n = len(p)
    index = np.full((n, n_terms), -1, dtype=np.int64)
    coefficient = np.zeros((n, n_terms))
    explained = np.zeros((n, n_terms))
    residual = p.copy()
    active = np.arange(n)
    for t in range(n_terms):
        if t:
            explained[:, t] = explained[:, t - 1]
        length = np.linalg.norm(residual[active], axis=1)
        active = active[length**2 > _GONE]
        if len(active):
            unit = residual[active] / np.linalg.norm(residual[active], axis=1, keepdims=True)
            best = sweep(torch.from_numpy(unit.astype(np.float32)).to(atoms.device), atoms, columns=False).rows
            taken, score = best.index[:, 0].cpu().numpy(), best.score[:, 0].cpu().numpy()
            fresh = (score > _GONE) & ~(index[active] == taken[:, None]).any(axis=1)
            active, taken = active[fresh], taken[fresh]
            index[active, t] = taken
        for i in active:
            members = w[index[i, : t + 1]].astype(np.float64)
            fitted, left = nnls(members.T, p[i])
            coefficient[i, : t + 1] = fitted
            residual[i] = p[i] - fitted @ members
            explained[i, t] = 1 - left**2
        if progress is not None:
            progress("sparse combinations", (t + 1) / n_terms)
    return SparseCombination(index, coefficient, explained)


def _close(narrow: Dictionary, wide: Dictionary, combination: SparseCombination, turned: np.ndarray) -> np.ndarray:
    """Return whether each term is closer to its narrow latent than any latent of the turned wide dictionary."""
    p, w = narrow.directions.cpu().numpy(), wide.directions.cpu().numpy()
    cosines = [(p * w[term]).sum(axis=1, dtype=np.float64) for term in combination.index.T]
    return (combination.index >= 0) & (np.stack(cosines, axis=1) > turned[:, None])


def _explained_by_chance(parents: Tensor, atoms: Tensor, n_terms: int) -> np.ndarray:
    """Return the share explained by the turned wide dictionary, for up to 512 evenly spaced parents."""
    rows = np.unique(np.linspace(0, len(parents) - 1, _NULL_LATENTS).round().astype(int))
    others = turned(atoms, principal_axes(atoms), seed=0)
    return sparse_combinations(parents[torch.from_numpy(rows).to(parents.device)], others, n_terms).explained
