"""Figure of the latents nearest to given vectors: cosine by rank, and the largest cosine expected by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sae_geometry.io.formatting import counted
from sae_geometry.plots.style import MUTED, RUNS, axes_or_new, in_paper_style
from sae_geometry.plots.text import put_caption, put_legend, room, shortened

_MOST_VECTORS = len(RUNS)


@in_paper_style
def nearest_ranks(found: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw cosine by rank, with one line per vector for the first eight; dotted: largest cosine expected by chance."""
    ax = axes_or_new(ax)
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
    put_caption(ax, f"nearest of {counted(found.n_candidates, 'latent')}; dotted: largest cosine expected by chance")
    title = shortened(found.vectors.name, 0.4 * room(ax))
    put_legend(ax, short=[str(vector) for vector in ids], title=title, legend=legend)
    return ax
