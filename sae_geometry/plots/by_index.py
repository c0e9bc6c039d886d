"""Figures of latents paired by id: histograms of relative decoder norms and of cosines."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_geometry.plots.style import INK, MUTED, NEAREST, ONE_TO_ONE, axes_or_new, in_paper_style, new_figure
from sae_geometry.plots.text import put_caption, put_legend, put_title, room, shortened

_MOST_LINEAR = 100  # A count axis that reaches beyond this is logarithmic.
_COLORS = {"only A": ONE_TO_ONE, "shared": MUTED, "only B": NEAREST}


@in_paper_style
def relative_norm_histogram(found: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the histogram of ‖b‖ / (‖a‖ + ‖b‖) of an `IndexComparison`, colored by class; dashed lines mark the cuts."""
    ax = axes_or_new(ax)
    edges = np.linspace(0, 1, 51).tolist()
    for name, color in _COLORS.items():
        values = found.relative_norm[found.classes == name]
        ax.hist(values, edges, color=color, alpha=0.85, label=f"{name}: {found.counts[name]:,}")
    for cut in found.cuts:
        ax.axvline(cut, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    if ax.get_ylim()[1] > _MOST_LINEAR:
        ax.set_yscale("symlog", linthresh=1)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    low, high = found.cuts
    ax.set(xlim=(0, 1), xlabel="relative decoder norm, B / (A + B)", ylabel="latents")
    put_caption(ax, f"dashed: cuts at {low:g} and {high:g}")
    put_legend(ax, legend=legend)
    return ax


@in_paper_style
def same_id_histogram(found: Any, ax: Axes | None = None) -> Axes:
    """Draw the cosines of latents with the same id as a histogram stacked by class; dotted: mean expected by chance."""
    ax = axes_or_new(ax)
    known = ~np.isnan(found.cosine)
    parts = [found.cosine[known & (found.classes == name)] for name in _COLORS]
    low = min([-0.1, *(float(p.min()) for p in parts if len(p))])
    ax.hist(parts, np.linspace(low, 1, 51).tolist(), stacked=True, color=list(_COLORS.values()), alpha=0.85)
    ax.axvline(found.by_chance, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    ax.set(xlabel="cosine of latents with the same id", ylabel="latents")
    put_caption(ax, "dotted: mean expected by chance")
    return ax


@in_paper_style
def by_index_figure(found: Any) -> Figure:
    """Return a figure with the histograms of relative norms and of cosines side by side."""
    figure = new_figure(height=2.9)
    left, right = figure.subplots(1, 2)
    relative_norm_histogram(found, ax=left)
    same_id_histogram(found, ax=right)
    a, b = (shortened(d.name, 0.4 * room(figure), 8, "bold") for d in (found.a, found.b))
    put_title(figure, f"A: {a}   B: {b}")
    return figure
