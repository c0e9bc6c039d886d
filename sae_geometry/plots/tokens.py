"""Figure of the cosine of each latent to its nearest token, for a dictionary and the turned dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from sae_geometry.plots.style import INK, MUTED, NEAREST, axes_or_new, in_paper_style
from sae_geometry.plots.text import LABEL_SIZE, makes_room, put_legend, room, shortened


@in_paper_style
def tokens_ecdf(reading: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the ECDF of the cosine to the nearest token, for the dictionary and the turned dictionary."""
    ax = axes_or_new(ax)
    for values, color, label in (
        (reading.nearest, NEAREST, f"{reading.readable.mean():.0%} readable (FDR 5%)"),
        (reading.turned_nearest, MUTED, "the turned dictionary"),
    ):
        ordered = np.sort(values)
        ax.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", color=color, label=label)
    ax.set_xlabel("cosine to the nearest token's direction", color=INK)
    ax.set_ylabel("share of latents", color=INK)
    ax.set_ylim(0, 1)
    name = reading.dictionary.name
    if makes_room(ax):
        ax.set_title(shortened(name, room(ax), 8, "bold"), loc="left", fontweight="bold")
    title = shortened(name, 0.6 * room(ax), LABEL_SIZE, "bold")
    put_legend(ax, title=title, loc="lower right", legend=legend)
    return ax
