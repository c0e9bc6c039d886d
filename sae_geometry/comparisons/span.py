"""Subspace analysis: how far the latents of one dictionary span the unmatched latents of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.linalg import eigh

from sae_geometry.comparisons.pair import compare
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted, percent
from sae_geometry.io.frozen import read_only
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.sweep import sweep
from sae_geometry.matching.defaults import THRESHOLD, MatchingName, check_threshold
from sae_geometry.nulls import principal_axes, turned
from sae_geometry.pairwise.confounds import confound_audit
from sae_geometry.pairwise.inputs import describe_input
from sae_geometry.results import methods
from sae_geometry.results.answer import PairAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAREST = (1, 2, 4, 8, 16, 32)
RANKS = (1, 2, 5, 10, 20, 50, 100, 200)
_MOST_NEAREST = 64
_NULL_LATENTS = 512


@dataclass(frozen=True, eq=False, repr=False)
class SpanOverlap(PairAnswer):
    """Share of each unmatched direction of A that lies in the span of B's latents.

    Attributes:
        a, b: the dictionaries.
        threshold: a latent of A is unmatched unless its one-to-one partner has a similarity above this.
        matching: the one-to-one matching.
        unmatched: int64 [U], rows of the unmatched latents in A.
        n_nearest: the K values of k.
        explained: float64 [U, K], share of each unmatched direction in the span of the k latents of B with the largest
            |cosine| to it.
        explained_by_chance: float64 [L, K], the same against the turned B, for a sample of L unmatched latents.
        ranks: the R values of r.
        overlap: float64 [R], mean squared cosine of the r principal angles between the leading r-dimensional subspaces
            of A's unmatched and B's matched latents.
        overlap_by_chance: float64 [R], the same against the turned B.
        overlap_isotropic: float64 [R], r/d, the expectation for random subspaces.
        angles: float64 [r], the principal angles in degrees at the largest rank.
        caveats: allowed mismatches and unknown spaces.
    """

    a: Dictionary
    b: Dictionary
    threshold: float
    matching: MatchingName
    unmatched: np.ndarray
    n_nearest: tuple[int, ...]
    explained: np.ndarray
    explained_by_chance: np.ndarray
    ranks: tuple[int, ...]
    overlap: np.ndarray
    overlap_by_chance: np.ndarray
    overlap_isotropic: np.ndarray
    angles: np.ndarray
    caveats: tuple[str, ...]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per unmatched latent of A: run, latent_id, and explained_k for each k."""
        ids = self.a.latent_ids.cpu().numpy()[self.unmatched]
        columns = {f"explained_{k}": self.explained[:, at] for at, k in enumerate(self.n_nearest)}
        return pd.DataFrame({"run": self.a.name, "latent_id": ids} | columns)

    def summary(self) -> dict[str, Any]:
        """Return the explained shares, subspace overlaps and caveats as a JSON-ready dict."""
        return {
            "inputs": {"a": describe_input(self.a), "b": describe_input(self.b)},
            "confounds": confound_audit(self.a, self.b).summary(),
            "threshold": self.threshold,
            "one_to_one_matching": self.matching,
            "n_unmatched": len(self.unmatched),
            "n_latents": self.a.n_latents,
            "explained_means": "mean share of an unmatched direction of a in the span of the k latents of b with the "
            "largest absolute cosine to it",
            "n_nearest": list(self.n_nearest),
            "explained": _means(self.explained),
            "explained_by_chance": _means(self.explained_by_chance),
            "overlap_means": "mean squared cosine of the r principal angles between the leading subspaces of a's "
            "unmatched latents and of b's matched latents",
            "ranks": list(self.ranks),
            "overlap": self.overlap.tolist(),
            "overlap_by_chance": self.overlap_by_chance.tolist(),
            "overlap_isotropic": self.overlap_isotropic.tolist(),
            "principal_angles_degrees": self.angles.tolist(),
            "caveats": list(self.caveats),
        }

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: span."""
        return {"span": self.to_pandas()}

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: span."""
        from sae_geometry import plots

        return {"span": plots.span_figure(self)}

    @property
    def method(self) -> str:
        return (
            f"We took the latents of {self.a.name} without a one-to-one partner in {self.b.name} above "
            f"{self.threshold:g}, by {methods.measure('decoder', True)}, and measured the share of each direction "
            f"that lies in the span of the k latents of {self.b.name} with the largest absolute cosine to it. "
            f"{methods.matched(self.matching)} Principal angles compare the leading subspaces of these latents and of "
            f"the matched latents of {self.b.name}. {methods.EXACT} {methods.by_chance(self.b.name)}"
        )

    @property
    def sentences(self) -> str:
        return (
            f"{len(self.unmatched):,} of {counted(self.a.n_latents, 'latent')} of {self.a.name} have no one-to-one "
            f"partner above {self.threshold:g} in {self.b.name}. {self._spanned[0].upper()}{self._spanned[1:]}."
        )

    @property
    def _spanned(self) -> str:
        if not len(self.unmatched):
            return "every latent has a partner"
        share, chance = (percent(float(e[:, -1].mean())) for e in (self.explained, self.explained_by_chance))
        return f"the {self.n_nearest[-1]} nearest span {share} of an unmatched direction; by chance {chance}"

    def _lines(self) -> list[str]:
        lines = [
            f"Span of {shown(self.b.name, 60)!r} against the {len(self.unmatched):,} of "
            f"{counted(self.a.n_latents, 'latent')} of {shown(self.a.name, 60)!r} with no one-to-one "
            f"({self.matching}) partner > {self.threshold:g}",
            f"  {self._spanned}",
        ]
        if len(self.unmatched):
            rows = [("k nearest", *(f"{k}" for k in self.n_nearest))]
            rows.append(("explained", *(f"{v:.1%}" for v in self.explained.mean(axis=0))))
            rows.append(("by chance", *(f"{v:.1%}" for v in self.explained_by_chance.mean(axis=0))))
            lines += ["  share of each direction in the span of the k nearest latents (by |cosine|):"]
            lines += [f"    {line}" for line in aligned(rows)]
        if self.ranks:
            rows = [("rank", *(f"{r}" for r in self.ranks)), ("overlap", *(f"{v:.1%}" for v in self.overlap))]
            rows.append(("by chance", *(f"{v:.1%}" for v in self.overlap_by_chance)))
            rows.append(("isotropic", *(f"{v:.1%}" for v in self.overlap_isotropic)))
            lines += ["  overlap of the leading subspaces of A's unmatched and B's matched latents:"]
            lines += [f"    {line}" for line in aligned(rows)]
        return lines


def span(
    a: Any,
    b: Any,
    *,
    threshold: float = THRESHOLD,
    n_nearest: Sequence[int] = NEAREST,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> SpanOverlap:
    """Measure whether A's unmatched latents are combinations of B's latents, or directions missing from B.

    A latent of A is unmatched if the similarity to its one-to-one partner (optimal up to 4,096 latents per side, greedy
    beyond) does not exceed `threshold`. With Q_k an orthonormal basis of the k latents of B with the largest absolute
    cosine to a_i, ‖Q_kᵀ a_i‖² is the share of a_i in their span. Any k directions explain some share, and the nearest
    k more, so the null expectation is the same measurement with the turned B. Principal angles compare the leading
    r-dimensional subspaces (right singular vectors) of A's unmatched and B's matched latents.

    Args:
        a, b: anything `compare` takes.
        threshold: similarity at or below which a latent is unmatched.
        n_nearest: values of k, 1…64, ascending.
        allow_mismatch: permit different models or hook points; every output then says so.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: invalid values of k, a threshold outside −1…1, different spaces.

    Example:
        >>> import sae_geometry as sg
        >>> s = sg.span("demo:local-seed0", "demo:local-seed1", n_nearest=(1, 4))
        >>> bool((s.explained[:, 1] >= s.explained[:, 0]).all())
        True
    """
    ks = tuple(n_nearest)
    if not ks or list(ks) != sorted(set(ks)) or not ks[0] >= 1 or ks[-1] > _MOST_NEAREST:
        raise ValueError(f"n_nearest must be ascending integers from 1 to {_MOST_NEAREST}; got {list(ks)}")
    check_threshold(threshold)
    made = compare(a, b, allow_mismatch=allow_mismatch, progress=progress).one_to_one()
    left, right = made.a, made.b.to(made.a.device)
    above = np.nan_to_num(made.a_to_b.similarity, nan=-np.inf) > threshold
    unmatched, matched = np.flatnonzero(~above), made.a_to_b.partner_row[above]
    rows = left.directions.cpu().numpy()[unmatched]
    others = right.directions.cpu().numpy()
    ks = tuple(k for k in ks if k <= min(len(others), left.d_in))
    unshared = turned(right.directions, principal_axes(right.directions), seed=0).cpu().numpy()
    few = rows[np.linspace(0, len(rows) - 1, min(_NULL_LATENTS, len(rows))).round().astype(int)]
    smallest = min(len(rows), len(matched), left.d_in)
    ranks = tuple(r for r in RANKS if r <= smallest // 2 or r == 1 <= smallest)
    most = max(ranks, default=0)
    ours, theirs = (_leading_subspace(x, most) for x in (rows, others[matched]))
    chosen = _leading_subspace(unshared[matched], most)
    cosines = [_angle_cosines(ours[:r], theirs[:r]) for r in ranks]
    return SpanOverlap(
        a=left,
        b=right,
        threshold=threshold,
        matching=made.matching,
        unmatched=read_only(unmatched),
        n_nearest=ks,
        explained=explained_by_nearest(rows, others, ks),
        explained_by_chance=explained_by_nearest(few, unshared, ks),
        ranks=ranks,
        overlap=np.array([float((c**2).mean()) for c in cosines]),
        overlap_by_chance=np.array([float((_angle_cosines(ours[:r], chosen[:r]) ** 2).mean()) for r in ranks]),
        overlap_isotropic=np.array([r / left.d_in for r in ranks]),
        angles=np.degrees(np.arccos(cosines[-1])) if cosines else np.empty(0),
        caveats=made.caveats,
    )


def explained_by_nearest(rows: np.ndarray, others: np.ndarray, n_nearest: Sequence[int]) -> np.ndarray:
    """Return the share of each row in the span of the k others with the largest |cosine| to it, float64 [n, K]."""
    if len(rows) == 0 or not n_nearest:
        return np.empty((len(rows), len(n_nearest)))
    most = max(n_nearest)
    x, y = (torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32)) for v in (rows, others))
    index = sweep(x, y, most, columns=False, absolute=True).rows.index.numpy()
    out = np.empty((len(rows), len(n_nearest)))
    for i, near in enumerate(index):
        basis = np.linalg.qr(others[near].astype(np.float64).T)[0]
        shares = np.cumsum((rows[i].astype(np.float64) @ basis) ** 2)
        out[i] = shares[[k - 1 for k in n_nearest]]
    return np.minimum(out, 1.0)


def _leading_subspace(rows: np.ndarray, rank: int) -> np.ndarray:
    """Return the leading right singular vectors of the rows, float64 [rank, d], from the smaller of x xᵀ and xᵀ x."""
    x = rows.astype(np.float64)
    n, d = x.shape
    if rank == 0:
        return np.empty((0, d))
    last = min(n, d)
    vectors = eigh(x @ x.T if n < d else x.T @ x, subset_by_index=(last - rank, last - 1))[1][:, ::-1]
    return np.asarray(np.linalg.qr(x.T @ vectors)[0].T if n < d else vectors.T)


def _angle_cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the cosines of the principal angles between the row spaces of x and y, whose rows are orthonormal."""
    return np.clip(np.linalg.svd(x @ y.T, compute_uv=False), 0.0, 1.0)


def _means(values: np.ndarray) -> list[float] | None:
    return values.mean(axis=0).tolist() if len(values) else None
