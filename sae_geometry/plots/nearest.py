"""Figure of the latents nearest to vectors: cosine by rank, with what turned dictionaries give."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sae_geometry.plots.style import COLUMN_WIDTH, MUTED, RUNS, axes_or_new, in_paper_style, new_figure
from sae_geometry.plots.text import makes_room, put_legend, room, shortened, wrapped

_MOST_VECTORS = len(RUNS)


@in_paper_style
def nearest_ranks(found: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the cosine of the k nearest latents by rank, a line per vector (the first eight), and chance, dotted.

    Args:
        found: a `Nearest`.
        ax: axes to draw on; a new figure if None.
        legend: draw the legend: below where the figure has a layout that makes room for it, else inside the axes.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.4)
    ids = found.vectors.latent_ids.tolist()[:_MOST_VECTORS]
    ranks = np.arange(1, found.cosine.shape[1] + 1)
    for i, (vector, color) in enumerate(zip(ids, RUNS, strict=False)):
        name = shortened(found.vectors.name, 0.4 * room(ax))
        ax.plot(ranks, found.cosine[i], "o-", color=color, markersize=3, label=f"{name} {vector}")
        if not np.isnan(found.expected[i]):
            ink = color if len(ids) > 1 else MUTED
            ax.axhline(found.expected[i], color=ink, linewidth=0.9, linestyle=(0, (1, 1.5)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="rank", ylabel="cosine")
    said = f"of {found.n_candidates:,} latents; dotted: largest by chance"
    if makes_room(ax):
        ax.set_title(wrapped(said, room(ax), 7), loc="left", fontsize=7)
    handles = ax.get_legend_handles_labels()[0]
    put_legend(ax, handles, short=[str(vector) for vector in ids], title=shortened(found.vectors.name, 0.4 * room(ax)),
               legend=legend)  # fmt: skip
    return ax


@in_paper_style
def nearest_figure(found: Any) -> Figure:
    """Draw `nearest_ranks` on a figure of its own."""
    figure = new_figure(COLUMN_WIDTH, 3.0)
    nearest_ranks(found, ax=figure.subplots())
    return figure
