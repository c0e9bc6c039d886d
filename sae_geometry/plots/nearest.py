"""Figure of the latents nearest to vectors: cosine by rank, with what turned dictionaries give."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sae_geometry.plots.style import COLUMN_WIDTH, MUTED, RUNS, axes_or_new, in_paper_style, new_figure
from sae_geometry.plots.text import shortened

_MOST_VECTORS = len(RUNS)


@in_paper_style
def nearest_ranks(found: Any, ax: Axes | None = None) -> Axes:
    """Draw the cosine of the k nearest latents by rank, a line per vector (the first eight), and chance, dotted."""
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.4)
    ids = found.vectors.latent_ids.tolist()[:_MOST_VECTORS]
    ranks = np.arange(1, found.cosine.shape[1] + 1)
    for i, (vector, color) in enumerate(zip(ids, RUNS, strict=False)):
        ax.plot(
            ranks,
            found.cosine[i],
            "o-",
            color=color,
            markersize=3,
            label=f"{shortened(found.vectors.name, 120)} {vector}",
        )
        if not np.isnan(found.expected[i]):
            ink = color if len(ids) > 1 else MUTED
            ax.axhline(found.expected[i], color=ink, linewidth=0.9, linestyle=(0, (1, 1.5)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="rank", ylabel="cosine")
    ax.set_title(f"of {found.n_candidates:,} latents; dotted: largest by chance", loc="left", fontsize=7)
    ax.legend(loc="best", fontsize=6.5)
    return ax


@in_paper_style
def nearest_figure(found: Any) -> Figure:
    """Draw `nearest_ranks` on a figure of its own."""
    figure = new_figure(COLUMN_WIDTH, 2.6)
    nearest_ranks(found, ax=figure.subplots())
    return figure
