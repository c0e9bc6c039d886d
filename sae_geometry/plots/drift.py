"""Checkpoints of one run: cosine of each latent to its final direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes

from sae_geometry.plots.style import COLUMN_WIDTH, NEAREST, ONE_TO_ONE, axes_or_new, in_paper_style


@runtime_checkable
class DriftLike(Protocol):
    """Attributes of a `Drift` that the figure uses."""

    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def samples(self) -> np.ndarray: ...
    @property
    def to_final(self) -> np.ndarray: ...
    @property
    def birth(self) -> np.ndarray: ...
    @property
    def threshold(self) -> float: ...


@in_paper_style
def drift_bands(drift: DriftLike, ax: Axes | None = None) -> Axes:
    """Draw the cosine to the final direction per checkpoint: median, middle 50 % and 90 %, and the share born.

    Checkpoints are evenly spaced on the axis, since they are usually saved at doubling intervals.

    Args:
        drift: a `Drift`.
        ax: axes to draw on; a new figure if None.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.9)
    x = np.arange(len(drift.labels))
    low, lower, middle, upper, high = np.quantile(drift.to_final, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
    ax.plot(x, middle, color=NEAREST, marker="o", markersize=3, label="median latent")
    ax.fill_between(x, lower, upper, color=NEAREST, alpha=0.4, linewidth=0, label="middle 50 % of latents")
    ax.fill_between(x, low, high, color=NEAREST, alpha=0.15, linewidth=0, label="middle 90 % of latents")
    born = [(drift.birth <= i).mean() for i in x]
    ax.plot(x, born, color=ONE_TO_ONE, linestyle="--", marker="s", markersize=3,
            label=f"share born (cosine ≥ {drift.threshold:g} from here on)")  # fmt: skip
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.0)
    ax.set_xticks(x, [_short(int(n), label) for n, label in zip(drift.samples, drift.labels, strict=True)])
    ax.set_xlim(-0.15, len(x) - 0.85)
    ax.set_ylim(min(0.0, float(low.min()) - 0.05), 1.03)
    ax.set_xlabel("checkpoint (samples seen)" if (drift.samples >= 0).any() else "checkpoint")
    ax.set_ylabel("cosine to final direction")
    return ax


def _short(samples: int, label: str) -> str:
    """Return a short label: 819k for 819,200 samples, or the name where it has no number."""
    if samples < 0:
        return label
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if samples >= size:
            return f"{samples / size:.3g}{unit}"
    return str(samples)
