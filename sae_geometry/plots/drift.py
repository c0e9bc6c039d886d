"""Figure of one run's checkpoints: the cosine of each latent to its final direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sae_geometry.plots.style import NEAREST, ONE_TO_ONE, axes_or_new, in_paper_style
from sae_geometry.plots.text import put_legend, room, shortened, width_of


@in_paper_style
def drift_bands(drift: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw, per checkpoint, quantiles of the cosine to the final direction and the share of latents born.

    Checkpoints are evenly spaced on the axis, since they are usually saved at doubling intervals.
    """
    ax = axes_or_new(ax, height=3.2)
    x = np.arange(len(drift.labels))
    low, lower, middle, upper, high = np.quantile(drift.to_final, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
    ax.plot(x, middle, color=NEAREST, marker="o", markersize=3, label="median latent")
    ax.fill_between(x, lower, upper, color=NEAREST, alpha=0.4, linewidth=0, label="middle 50% of latents")
    ax.fill_between(x, low, high, color=NEAREST, alpha=0.15, linewidth=0, label="middle 90% of latents")
    born = [(drift.birth <= i).mean() for i in x]
    ax.plot(x, born, color=ONE_TO_ONE, linestyle="--", marker="s", markersize=3,
            label=f"share born (cosine ≥ {drift.threshold:g} from then on)")  # fmt: skip
    _name_checkpoints(ax, [_short(int(n), label) for n, label in zip(drift.samples, drift.labels, strict=True)])
    ax.set_xlim(-0.15, len(x) - 0.85)
    ax.set_ylim(min(0.0, float(low.min()) - 0.05), 1.03)
    ax.set_xlabel("checkpoint (samples seen)" if (drift.samples >= 0).any() else "checkpoint")
    ax.set_ylabel("cosine to final direction")
    short = ["median", "middle 50%", "middle 90%", "share born"]
    put_legend(ax, short=short, loc="lower right", legend=legend)
    return ax


def _name_checkpoints(ax: Axes, labels: Sequence[str]) -> None:
    """Label as many checkpoints as fit on the axis, always including the last."""
    widest = min(50.0, max(width_of(label, 7.5) for label in labels)) + 5
    most = max(1, min(len(labels), int(room(ax) / widest)))
    shown = np.unique(np.linspace(len(labels) - 1, 0, most).round().astype(int))
    step = len(labels) // len(shown) * room(ax) / len(labels)
    ax.set_xticks(shown, [shortened(labels[k], step - 4, 7.5) for k in shown])


def _short(samples: int, label: str) -> str:
    """Return a short label, such as 819k for 819,200 samples, or the checkpoint's name if the number is unknown."""
    if samples < 0:
        return label
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if samples >= size:
            return f"{samples / size:.3g}{unit}"
    return str(samples)
