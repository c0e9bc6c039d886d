"""Summary figure of a comparison: the share of latents with a partner in the other dictionary, and its similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.plots.style import COLUMN_WIDTH, INK, MUTED, NEAREST, axes_or_new, in_paper_style, lower_end
from sae_geometry.plots.text import LABEL_SIZE, lettered, makes_room, put_legend, room, shortened, wrapped

_COLORS = ("#BBBBBB", "#56B4E9", NEAREST)
_BINS = 50
_NUMBER, _STRIP = 15.0, 36.0  # heights in points of a printed share, and of the strip of text over the bars


@in_paper_style
def partners_histogram(
    nearest: Matching, ax: Axes | None = None, *, threshold: float = THRESHOLD, legend: bool = True
) -> Axes:
    """Draw the histogram of nearest similarities, stacked by class: not significant, significant, above `threshold`.

    The share of each class is written over the bars; vertical lines mark the mean and its null expectation.

    Args:
        nearest: one direction of a nearest matching.
        ax: axes to draw on; a new figure if None.
        threshold: similarity above which a latent counts as recovered.
        legend: draw the legend below the axes, if the figure's layout makes room for it.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH * 1.1, 2.9)
    known = np.isfinite(nearest.similarity)
    above = known & (nearest.similarity > threshold)
    low = lower_end(nearest.similarity)
    edges = np.linspace(low, 1.0, _BINS + 1)
    base, height = np.zeros(_BINS), float(ax.bbox.height * 72 / ax.figure.dpi)
    classes = (
        ("not significant", ~above & ~nearest.significant),
        (f"significant, up to {threshold:g}", ~above & nearest.significant),
        (f"above {threshold:g}", above),
    )
    for at, ((name, members), color) in enumerate(zip(classes, _COLORS, strict=True)):
        top = base + np.histogram(nearest.similarity[members & known].clip(low, 1.0), edges)[0]
        ax.stairs(top, edges, baseline=base, fill=True, color=color)
        base = top
        how: Any = {"transform": ax.transAxes, "color": color if at else MUTED, "va": "top"}
        x = 0.01 + 0.34 * at
        ax.text(x, 0.99, f"{members.mean():.0%}", fontsize=13, fontweight="bold", **how)
        ax.text(x, 0.99 - _NUMBER / height, wrapped(name, 0.31 * room(ax)), fontsize=LABEL_SIZE, **how)
    lines = (("mean", nearest.mean_similarity, "-"), ("expected by chance", nearest.chance, ":"))
    drawn = [
        ax.axvline(at, ymax=0.6, color=INK, linewidth=0.8, linestyle=dash, label=f"{name} {at:.2f}")
        for name, at, dash in lines
        if np.isfinite(at)
    ]
    ax.set(xlim=(low, 1.0), ylim=(0, max(base.max(), 1.0) / max(0.3, 1 - _STRIP / height)))
    ax.set(xlabel=f"{nearest.quantity} to the nearest latent of B", ylabel="latents of A")
    if not makes_room(ax) and legend:  # The strip over the bars leaves no room for a legend.
        source, target = (shortened(name, 0.3 * room(ax), 7) for name in (nearest.source, nearest.target))
        ax.set_xlabel(f"{nearest.on} cosine, {source} → {target}")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    if makes_room(ax):
        ax.set_title(lettered({"A": nearest.source, "B": nearest.target}, room(ax), 8, "bold"), loc="left",
                     fontweight="bold")  # fmt: skip
        put_legend(ax, drawn, legend=legend)
    return ax
