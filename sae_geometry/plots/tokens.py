"""Figure of tokens: cosine of each latent to its nearest token, and of the turned dictionary's latents."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_geometry.plots.style import COLUMN_WIDTH, INK, MUTED, NEAREST, axes_or_new, in_paper_style, literal, new_figure


@in_paper_style
def tokens_ecdf(reading: Any, ax: Axes | None = None) -> Axes:
    """Draw the ECDF of the cosine to the nearest token, for the dictionary and for the dictionary turned.

    Args:
        reading: a `TokenReading`.
        ax: axes to draw on; a new figure if None.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.4)
    for values, color, label in (
        (reading.nearest, NEAREST, f"{reading.readable.mean():.0%} readable (FDR 5 %)"),
        (reading.turned_nearest, MUTED, "the dictionary turned"),
    ):
        ordered = np.sort(values)
        ax.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", color=color, label=label)
    ax.set_xlabel("cosine to the nearest token's direction", color=INK)
    ax.set_ylabel("share of latents", color=INK)
    ax.set_ylim(0, 1)
    ax.set_title(literal(reading.dictionary.name), loc="left", fontweight="bold")
    ax.legend(frameon=False, loc="lower right")
    return ax


@in_paper_style
def tokens_figure(reading: Any) -> Figure:
    """Draw `tokens_ecdf` as a figure."""
    figure = new_figure(COLUMN_WIDTH, 2.4)
    tokens_ecdf(reading, figure.subplots())
    return figure
