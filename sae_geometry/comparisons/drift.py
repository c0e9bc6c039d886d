"""Drift of one run through its checkpoints: how each latent's direction approaches its final direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted, ends
from sae_geometry.io.frozen import read_only
from sae_geometry.io.progress import Progress
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.pairwise.inputs import describe_input, distinct_names
from sae_geometry.results import methods
from sae_geometry.results.answer import Answer
from sae_geometry.sources import checkpoints, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = 4096


@dataclass(frozen=True, eq=False, repr=False)
class Drift(Answer):
    """Cosine of each latent to its own final direction at every checkpoint. Latents are identified by index.

    Attributes:
        final: the last checkpoint.
        labels: labels of all checkpoints, oldest first.
        samples: int64 [n_checkpoints], the number in `samples_N.pt`; −1 if the name has none.
        to_final: float64 [n_checkpoints, n_latents], cos(w_t, w_final); 1 in the last row.
        to_next: float64 [n_checkpoints − 1, n_latents], cos(w_t, w_{t+1}).
        threshold: a latent is born once its cosine to the final direction stays at or above this.
        still: a latent is unmoved once 1 − its cosine to the next checkpoint stays at or below this.
    """

    final: Dictionary
    labels: tuple[str, ...]
    samples: Int64[np.ndarray, " n_checkpoints"]
    to_final: Float64[np.ndarray, "n_checkpoints n_latents"]
    to_next: Float64[np.ndarray, "n_steps n_latents"]
    threshold: float
    still: float

    @property
    def birth(self) -> Int64[np.ndarray, " n_latents"]:
        """Return the index into `labels` of the first checkpoint at and after which `to_final` is ≥ `threshold`."""
        below = self.to_final < self.threshold
        last_below = below.shape[0] - 1 - below[::-1].argmax(axis=0)
        return read_only(np.where(below.any(axis=0), last_below + 1, 0).astype(np.int64))

    @property
    def death(self) -> Int64[np.ndarray, " n_latents"]:
        """Return the index into `labels` of the first checkpoint at and after which a latent is unmoved, or −1.

        A latent that stopped firing gets no gradient and keeps its direction. A converged or very rare latent may also
        stop moving, so compare with `final.alive_mask`.
        """
        moved = 1.0 - self.to_next > self.still
        stopped = moved.shape[0] - moved[::-1].argmax(axis=0)
        when = np.where(moved.any(axis=0), stopped, 0)
        return read_only(np.where(when < moved.shape[0], when, -1).astype(np.int64))

    def summary(self) -> dict[str, Any]:
        """Return the median and mean cosine and the shares born and unmoved per checkpoint, as a JSON-ready dict."""
        birth, death = self.birth, self.death
        rows = [
            {
                "checkpoint": label,
                "samples": int(n) if n >= 0 else None,
                "median_cosine_to_final": float(np.median(cosine)),
                "mean_cosine_to_final": float(cosine.mean()),
                "share_born": float((birth <= i).mean()),
                "share_standing_still": float(((death >= 0) & (death <= i)).mean()),
            }
            for i, (label, n, cosine) in enumerate(zip(self.labels, self.samples, self.to_final, strict=True))
        ]
        dead = self._dead()
        return {
            "inputs": {"final": describe_input(self.final)},
            "latents_followed_by": "index",
            "birth": f"first checkpoint at and after which the cosine to the final direction is ≥ {self.threshold:g}",
            "death": f"first checkpoint at and after which 1 − the cosine to the next checkpoint is ≤ {self.still:g}",
            "checkpoints": rows,
            "n_latents": int(self.to_final.shape[1]),
            "n_standing_still_at_the_end": int((death >= 0).sum()),
            "n_known_dead": None if dead is None else int(dead.sum()),
            **label_summary(self.meanings),
            "n_known_dead_that_stand_still": None if dead is None else int((dead & (death >= 0)).sum()),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent and checkpoint.

        Columns: latent_id, checkpoint, samples, cosine_to_final, cosine_to_next (nan for the last), birth and death
        (checkpoint labels; None for a latent that moves until the end), alive (null if unknown).
        """
        n_checkpoints, n = self.to_final.shape
        names = np.array([*self.labels, None], dtype=object)
        dead = self._dead()
        alive = [None] * n if dead is None else [not d for d in dead.tolist()]
        next_cosine = np.vstack([self.to_next, np.full((1, n), np.nan)])
        return pd.DataFrame(
            {
                "latent_id": np.tile(self.final.latent_ids.numpy(), n_checkpoints),
                "checkpoint": np.repeat(np.array(self.labels, dtype=object), n),
                "samples": pd.array(np.repeat(self.samples, n), dtype="Int64"),
                "cosine_to_final": self.to_final.reshape(-1),
                "cosine_to_next": next_cosine.reshape(-1),
                "birth": np.tile(names[self.birth], n_checkpoints),
                "death": np.tile(names[self.death], n_checkpoints),
                "alive": pd.array(alive * n_checkpoints, dtype="boolean"),
            }
        )

    @property
    def method(self) -> str:
        return (
            f"We followed each latent of {self.final.name} by its index through "
            f"{counted(len(self.labels), 'checkpoint')} and computed {methods.measure('decoder', True)} with the final "
            "checkpoint and with the next checkpoint. A latent is born once its cosine to the final direction stays "
            f"at or above {self.threshold:g}, and dies once 1 minus its cosine to the next checkpoint stays at or "
            f"below {self.still:g}. Nothing is compared with chance."
        )

    @property
    def dictionaries(self) -> tuple[Dictionary]:
        return (self.final,)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return the notes on the last checkpoint."""
        return tuple(self.final.notes)

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table to save: drift."""
        return {"drift": self.to_pandas()}

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure to save: drift."""
        from sae_geometry import plots

        return {"drift": plots.figure_of(self.plot, 3.4, 3.2)}

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of the latents that moved least and most since the first checkpoint."""
        moved = np.argsort(np.argsort(-self.to_final[0], kind="stable"), kind="stable") * 3 // self.final.n_latents
        names = ("moved least", "in between", "moved most")
        ids = self.final.latent_ids.numpy()
        table = pd.DataFrame({"run": self.final.name, "latent_id": ids, "cosine": self.to_final[0]})
        return pair_labels(table, [self.final], groups=np.array(names, dtype=object)[moved], names=names)

    def plot(self, ax: Axes | None = None, *, legend: bool = True) -> Axes:
        """Draw the cosine to the final direction during training: median, middle 50% and 90%, and share born."""
        from sae_geometry import plots

        return plots.drift_bands(self, ax=ax, legend=legend)

    def _dead(self) -> np.ndarray | None:
        return None if self.final.alive_mask is None else ~self.final.alive_mask.numpy()

    @property
    def sentences(self) -> str:
        rows = self.summary()["checkpoints"]
        return (
            f"From {self._half_born(rows)} on, at least half of the latents of {self.final.name} have a cosine of at "
            f"least {self.threshold:g} to their final direction. At {rows[0]['checkpoint']}, the first of "
            f"{counted(len(rows), 'checkpoint')}, the median of that cosine over all latents is "
            f"{rows[0]['median_cosine_to_final']:.3f}."
        )

    def _half_born(self, rows: Sequence[dict[str, Any]]) -> str:
        """Return the name of the first checkpoint at which at least half of the latents are born."""
        return str(next(r["checkpoint"] for r in rows if r["share_born"] >= 0.5))

    def _lines(self) -> list[str]:
        rows = self.summary()["checkpoints"]
        lines = [
            f"Drift of {shown(self.final.name, 40)!r}: {counted(self.to_final.shape[1], 'latent')} through "
            f"{counted(len(rows), 'checkpoint')}",
            f"  half of the latents are born (cosine to the final direction ≥ {self.threshold:g}) by "
            f"{shown(self._half_born(rows), 28)}",
        ]
        table = [("checkpoint", "median cosine to final", "born", "standing still")]
        table += [
            (shown(r["checkpoint"], 28), f"{r['median_cosine_to_final']:.3f}", f"{r['share_born']:6.1%}",
             f"{r['share_standing_still']:6.1%}")
            for r in rows
        ]  # fmt: skip
        head, *body = aligned(table)
        lines += [f"  {line}" for line in (head, *ends(body))]
        return lines


def drift(
    run: str | Path | Sequence[str | Path | Dictionary],
    final: str | Path | Dictionary | None = None,
    *,
    threshold: float = 0.9,
    still: float = 1e-5,
    drop_bad: bool = False,
    offline: bool = False,
    echo: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Drift:
    """Follow each latent of one run through its saved checkpoints, by index.

    For latent i with unit decoder direction w_t(i) at checkpoint t, compute cos(w_t(i), w_T(i)) to the last checkpoint
    and cos(w_t(i), w_{t+1}(i)) to the next checkpoint. A latent is *born* once its cosine to the last checkpoint stays
    at or above `threshold`, and *dies* once its cosine to the next checkpoint stays within `still` of 1.

    Args:
        run: a folder or W&B run with several `samples_N.pt`, or the checkpoints, oldest first: addresses or
            dictionaries.
        final: the last checkpoint, if `run` does not include it.
        threshold: a latent is born once its cosine to the final direction stays at or above this, in (0, 1].
        still: a latent is unmoved once 1 − its cosine to the next stays at or below this; > 1e-6 for half precision.
        drop_bad: leave out latents whose decoder row is zero, NaN or infinite in any checkpoint, instead of raising.
        offline: do not use the network.
        echo: called with a message on how each address was resolved.
        progress: called with "checkpoints" and the completed fraction.

    Returns:
        Drift. At most three checkpoints, including the last, are in memory at a time.

    Raises:
        ValueError: fewer than two checkpoints, or checkpoints of different sizes.
        SourceError: a checkpoint is unavailable.

    Example:
        >>> import sae_geometry as sg
        >>> d = sg.drift(["demo:e2e-seed0", "demo:local-seed0"])
        >>> d.to_final.shape
        (2, 1536)
    """
    if not 0 < threshold <= 1 or not 0 <= still < 1:
        raise ValueError(f"threshold must lie in (0, 1] and still in [0, 1); got {threshold} and {still}")
    states: list[str | Path | Dictionary] = list(
        checkpoints(run, offline=offline, echo=echo, progress=progress) if isinstance(run, str | Path) else run
    )
    states += [] if final is None else [final]
    if len(states) < 2:
        raise ValueError(f"following a run needs at least two checkpoints; got {len(states)}")

    def read(state: str | Path | Dictionary, encoder: bool) -> Dictionary:
        if isinstance(state, Dictionary):
            return state
        how: dict[str, Any] = {"drop_bad": drop_bad, "offline": offline, "echo": echo, "progress": progress}
        return load(state, "all", encoder=encoder, **how)

    last = read(states[-1], True)
    to_final, to_next, labels, samples = [], [], [], []
    previous: Dictionary | None = None
    for i, state in enumerate(states):
        now = last if i == len(states) - 1 else read(state, False)
        if (now.alive.n_total, now.d_in) != (last.alive.n_total, last.d_in):
            raise ValueError(
                f"{now.address or now.name} is {now.alive.n_total:,} × {now.d_in:,} but {last.address or last.name} is "
                f"{last.alive.n_total:,} × {last.d_in:,}: they are not checkpoints of the same run"
            )
        to_final.append(_cosines(now, last, last.latent_ids))
        if previous is not None:
            to_next.append(_cosines(previous, now, last.latent_ids))
        label, n = _label(now)
        labels.append(label)
        samples.append(n)
        previous = now
        if progress is not None:
            progress("checkpoints", (i + 1) / len(states))
    final_cosine, next_cosine = np.stack(to_final), np.stack(to_next)
    whole = ~(np.isnan(final_cosine).any(axis=0) | np.isnan(next_cosine).any(axis=0))
    return Drift(
        final=last if whole.all() else last.select(whole),
        labels=tuple(distinct_names(labels, [None] * len(labels))),
        samples=read_only(np.array(samples, dtype=np.int64)),
        to_final=read_only(final_cosine[:, whole]),
        to_next=read_only(next_cosine[:, whole]),
        threshold=threshold,
        still=still,
    )


def _cosines(a: Dictionary, b: Dictionary, ids: Tensor) -> np.ndarray:
    """Return the cosine between each latent's directions in `a` and `b`, float64 [n_latents]; nan if one is missing."""
    if not (torch.equal(a.latent_ids, ids) and torch.equal(b.latent_ids, ids)):
        both = ids[torch.isin(ids, a.latent_ids) & torch.isin(ids, b.latent_ids)]
        found = np.full(len(ids), np.nan)
        found[torch.isin(ids, both).numpy()] = _cosines(a.select(both), b.select(both), both)
        return found

    def block(x: Tensor, y: Tensor) -> Tensor:
        u, v = x.to(torch.float64), y.to(torch.float64)
        return (u * v).sum(dim=1) / (torch.linalg.vector_norm(u, dim=1) * torch.linalg.vector_norm(v, dim=1))

    pairs = zip(a.directions.split(_ROWS), b.directions.to(a.device).split(_ROWS), strict=True)
    return np.asarray(torch.cat([block(x, y) for x, y in pairs]).clamp(-1.0, 1.0).cpu().numpy())


def _label(d: Dictionary) -> tuple[str, int]:
    place = (d.address or "").partition("::")[0].replace("\\", "/")
    stem = place.rpartition("/")[2].rpartition("#")[2].removesuffix(".pt")
    digits = stem.removeprefix("samples_")
    return (stem, int(digits)) if stem != digits and digits.isdecimal() else (d.name, -1)
