"""Comparison of the latents with the same id in two dictionaries, such as the two models of a crosscoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, known_mean, or_dash, percent
from sae_geometry.io.frozen import read_only
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.matching.defaults import THRESHOLD, check_threshold
from sae_geometry.nulls import principal_axes, turned
from sae_geometry.pairwise.inputs import describe_input, distinct
from sae_geometry.pairwise.label_columns import positions
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.results import methods
from sae_geometry.results.answer import PairAnswer
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CUTS = (0.1, 0.9)
CLASSES = ("shared", "only A", "only B")
ARTIFACT = (
    "crosscoders trained with an L1 penalty produce spurious only-B (and only-A) latents, since the penalty drives the "
    "smaller norm to zero although both models have the feature (Minder et al. 2025); BatchTopK crosscoders have fewer"
)


@dataclass(frozen=True, eq=False, repr=False)
class IndexComparison(PairAnswer):
    """Comparison of two dictionaries whose latents are paired by id.

    Attributes:
        a, b: the dictionaries.
        ids: int64 [n], ids that are in both dictionaries, or in one if the other's decoder row is zero.
        cosine: float64 [n], cosine of the two directions with the same id; nan where a row is zero.
        norm_a, norm_b: float64 [n], decoder norms in the file's units.
        nearest_in_b: int64 [n], id of the latent of B nearest to each latent of A (the same id in a tie); −1 if A's row
            is zero. `nearest_in_b_cosine` is the cosine to that latent.
        nearest_in_a, nearest_in_a_cosine: the same from B to A.
        cuts: maximum relative norm of an "only A" latent, and minimum relative norm of an "only B" latent.
        threshold: cosine above which latents with the same id count as similar.
        by_chance: mean cosine between latents with the same id in A and in the turned B.
        caveats: warnings to show with the result.
    """

    a: Dictionary
    b: Dictionary
    ids: np.ndarray
    cosine: np.ndarray
    norm_a: np.ndarray
    norm_b: np.ndarray
    nearest_in_b: np.ndarray
    nearest_in_b_cosine: np.ndarray
    nearest_in_a: np.ndarray
    nearest_in_a_cosine: np.ndarray
    cuts: tuple[float, float]
    threshold: float
    by_chance: float
    caveats: tuple[str, ...]

    @cached_property
    def relative_norm(self) -> np.ndarray:
        """Return ‖b_i‖ / (‖a_i‖ + ‖b_i‖), float64 [n]: 0 if only in A, 0.5 if equal, 1 if only in B."""
        return read_only(self.norm_b / (self.norm_a + self.norm_b))

    @property
    def classes(self) -> np.ndarray:
        """Return "only A", "shared" or "only B" for each id, from its `relative_norm` and the cuts."""
        low, high = self.cuts
        return np.where(self.relative_norm <= low, "only A", np.where(self.relative_norm >= high, "only B", "shared"))

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of ids in each class."""
        return {name: int((self.classes == name).sum()) for name in CLASSES}

    @property
    def mean_cosine(self) -> float:
        """Return the mean cosine of latents with the same id; nan if there are none."""
        return known_mean(self.cosine)

    @property
    def other_in_b(self) -> np.ndarray:
        """Return whether the latent of B nearest to each latent of A has a different id, bool [n]."""
        return (self.nearest_in_b >= 0) & (self.nearest_in_b != self.ids)

    @property
    def other_in_a(self) -> np.ndarray:
        """Return whether the latent of A nearest to each latent of B has a different id, bool [n]."""
        return (self.nearest_in_a >= 0) & (self.nearest_in_a != self.ids)

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of both latents of each id (first B's if only in B); None if there are no labels."""
        table, only_b = self.to_pandas(), self.classes == CLASSES[2]
        table.loc[only_b, ["run", "partner_run"]] = self.b.name, self.a.name
        return pair_labels(table, self.dictionaries, groups=self.classes, names=CLASSES)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per id: run, latent_id, partner_run, partner_id (equal to latent_id), cosine,
        norm_a, norm_b, relative_norm, class, and the nearest latents in both directions.
        """
        names = ("cosine", "norm_a", "norm_b", "relative_norm")
        nearest = ("nearest_in_b", "nearest_in_b_cosine", "nearest_in_a", "nearest_in_a_cosine")
        return pd.DataFrame(
            {"run": self.a.name, "latent_id": self.ids, "partner_run": self.b.name, "partner_id": self.ids}
            | {name: getattr(self, name) for name in names}
            | {"class": self.classes}
            | {name: getattr(self, name) for name in nearest}
        )

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: by_index."""
        return {"by_index": self.to_pandas()}

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: by_index."""
        from sae_geometry import plots

        return {"by_index": plots.by_index_figure(self)}

    def summary(self) -> dict[str, Any]:
        """Return the inputs, cosines, relative norms, class counts and caveats as a JSON-ready dict."""
        counts, edges = np.histogram(self.relative_norm, bins=50, range=(0, 1))
        return {
            "inputs": {"a": describe_input(self.a), "b": describe_input(self.b)},
            "pairing": "index",
            "similarity": "decoder cosine",
            "n_ids": len(self.ids),
            "mean_cosine_of_same_ids": self.mean_cosine,
            "fraction_above": {f"{t}": float((self.cosine > t).mean()) for t in sorted({0.5, self.threshold, 0.9})},
            "mean_cosine_by_chance": self.by_chance,
            "nearest_is_another_id": {"a_to_b": float(self.other_in_b.mean()), "b_to_a": float(self.other_in_a.mean())},
            "relative_norm_means": "norm in B / (norm in A + norm in B)",
            "relative_norm_histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
            "cuts": {"only_a_at_most": self.cuts[0], "only_b_at_least": self.cuts[1]},
            "classes": self.counts,
            "mean_cosine_of_shared": known_mean(self.cosine[self.classes == "shared"]),
            **label_summary(self.meanings),
            "caveats": list(self.caveats),
        }

    @property
    def method(self) -> str:
        low, high = self.cuts
        return (
            f"We compared the latents of {self.a.name} and {self.b.name} that have the same id, by "
            f"{methods.measure('decoder', True)}. A latent is only in {self.a.name} if its relative "
            f"decoder norm ‖b‖ / (‖a‖ + ‖b‖) is at most {low:g}, and only in {self.b.name} if it is at least {high:g}. "
            f"We also found the nearest latent in the other dictionary, which may have a different id. {methods.EXACT} "
            f"{methods.by_chance(self.b.name)}"
        )

    @property
    def sentences(self) -> str:
        shared, in_a, in_b = (f"{self.counts[name]:,}" for name in ("shared", "only A", "only B"))
        return (
            f"Latents with the same id in {self.a.name} (A) and {self.b.name} (B) have a mean cosine of "
            f"{or_dash(self.mean_cosine, '.3f')}; {or_dash(self.by_chance, '.3f')} would be expected by chance. By "
            f"their decoder norms, {shared} of {counted(len(self.ids), 'latent')} are shared, {in_a} are only in A and "
            f"{in_b} only in B."
        )

    def _lines(self) -> list[str]:
        low, high = self.cuts
        n, counts = len(self.ids), self.counts
        quarters = np.quantile(self.relative_norm, (0.25, 0.5, 0.75))
        rules = {"shared": f"relative norm between {low:g} and {high:g}", "only A": f"at most {low:g}"}
        rules["only B"] = f"at least {high:g}"
        return [
            f"Latents with the same id in A ({shown(self.a.name, 60)!r}) and B ({shown(self.b.name, 60)!r}): "
            f"{counted(n, 'latent')} × {self.a.d_in:,}",
            f"  mean cosine {or_dash(self.mean_cosine, '.4f')}   by chance {or_dash(self.by_chance, '.4f')}"
            f"   above {self.threshold:g}: {percent((self.cosine > self.threshold).mean())}",
            f"  mean cosine of shared latents {or_dash(known_mean(self.cosine[self.classes == 'shared']), '.4f')}",
            f"  nearest latent has a different id: {percent(self.other_in_b.mean())} of A's latents, "
            f"{percent(self.other_in_a.mean())} of B's",
            *(
                f"  {name}  {counts[name]:>9,}  {percent(counts[name] / n):>6}  {rule}"
                for name, rule in rules.items()
            ),
            f"  relative norm, B / (A + B): quartiles {', '.join(f'{q:.3f}' for q in quarters)}",
            *([f"  ! {ARTIFACT}"] if counts["only A"] or counts["only B"] else []),
        ]  # fmt: skip

    def _definitions(self) -> list[str]:
        return [f"  {d.name}: {d.alive.describe()}" for d in self.dictionaries]


def compare_by_index(
    a: Any,
    b: Any,
    *,
    cuts: tuple[float, float] = CUTS,
    threshold: float = THRESHOLD,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> IndexComparison:
    """Compare latents with the same id in two models of a crosscoder, or before and after fine-tuning.

    Args:
        a, b: anything that `compare` takes, with the same number of latents in both files. A latent whose decoder row
            is zero in one file (`drop_bad`) has norm 0 there.
        cuts: maximum relative decoder norm ‖b‖ / (‖a‖ + ‖b‖) of an "only A" latent, and minimum of an "only B" latent.
        threshold: cosine above which latents with the same id count as similar.
        allow_mismatch: permit different models or hook points; every output then says so.
        progress: called with the current step and its completed fraction.

    Raises:
        ValueError: different numbers of latents, no common id, cuts out of order, or different spaces.

    Example:
        >>> import sae_geometry as sg
        >>> c = sg.compare_by_index("demo:local-seed0", "demo:local-seed0")
        >>> c.counts
        {'shared': 1536, 'only A': 0, 'only B': 0}
    """
    low, high = cuts
    check_threshold(threshold)
    if not 0 <= low < high <= 1:
        raise ValueError(f"cuts must be two relative norms with 0 ≤ low < high ≤ 1; got {low:g} and {high:g}")
    left, right = distinct([as_dictionary(a), as_dictionary(b)])
    if left.alive.n_total != right.alive.n_total:
        raise ValueError(
            f"{left.name!r} has {counted(left.alive.n_total, 'latent')} in its file but {right.name!r} has "
            f"{right.alive.n_total:,}, so the ids do not correspond; leave out --pairing index"
        )
    caveats = [f"{d.name}: {note}" for d in (left, right) for note in d.notes]
    caveats += [*require_same_space(left, right, allow_mismatch), ARTIFACT]
    right = right.to(left.device)
    x_ids, y_ids = (d.latent_ids.cpu().numpy() for d in (left, right))
    ids = np.union1d(
        np.intersect1d(x_ids, y_ids),
        np.union1d(np.intersect1d(x_ids, right.alive.bad_ids), np.intersect1d(y_ids, left.alive.bad_ids)),
    ).astype(np.int64)
    if not len(ids):
        raise ValueError(f"{left.name!r} and {right.name!r} have no latent ids in common")
    left_out = len(np.union1d(x_ids, y_ids)) - len(ids)
    if left_out:
        caveats.append(f"left out {counted(left_out, 'latent')} that one of the two dictionaries dropped as dead")
    tick = None if progress is None else lambda share: progress("similarities", share)
    swept = listing_sweep(left.directions, right.directions, 1, progress=tick)
    assert swept.cols is not None
    at_x, at_y = positions(left, ids), positions(right, ids)
    unshared = turned(right.directions, principal_axes(right.directions), seed=0)
    cosine = _cosines(left.directions, right.directions, at_x, at_y)
    norms = [_taken(d.decoder_norms.cpu().double().numpy(), at, 0.0) for d, at in ((left, at_x), (right, at_y))]
    in_b, in_a = (
        _nearest(best, at, others, ids, cosine)
        for best, at, others in ((swept.rows, at_x, y_ids), (swept.cols, at_y, x_ids))
    )
    return IndexComparison(
        a=left,
        b=right,
        ids=ids,
        cosine=cosine,
        norm_a=norms[0],
        norm_b=norms[1],
        nearest_in_b=in_b[0],
        nearest_in_b_cosine=in_b[1],
        nearest_in_a=in_a[0],
        nearest_in_a_cosine=in_a[1],
        cuts=(low, high),
        threshold=threshold,
        by_chance=known_mean(_cosines(left.directions, unshared, at_x, at_y)),
        caveats=tuple(caveats),
    )


def _taken(values: np.ndarray, rows: np.ndarray, missing: float) -> np.ndarray:
    return np.where(rows >= 0, values[rows], missing)


def _cosines(x: torch.Tensor, y: torch.Tensor, at_x: np.ndarray, at_y: np.ndarray) -> np.ndarray:
    """Return the cosine of x[at_x[i]] and y[at_y[i]]; nan where a row is missing."""
    both = (at_x >= 0) & (at_y >= 0)
    out = np.full(len(both), np.nan)
    pairs = (torch.from_numpy(at[both]).to(x.device) for at in (at_x, at_y))
    out[both] = exact_dots(x, y, *pairs).cpu().numpy()
    return out.clip(-1.0, 1.0)


def _nearest(
    best: Any, at: np.ndarray, others: np.ndarray, ids: np.ndarray, same: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the id and cosine of the latent nearest to each of `ids`; the same id wins a tie."""
    cosine = _taken(best.cosine[:, 0].cpu().numpy(), at, np.nan).clip(-1.0, 1.0)
    found = np.where(at >= 0, others[best.index[:, 0].cpu().numpy()[at]], -1)
    return np.where(same >= cosine, ids, found), cosine
