"""Figures of span: unmatched directions explained by their nearest latents, and overlap of leading subspaces."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_geometry.io.formatting import counted
from sae_geometry.plots.style import MUTED, NEAREST, axes_or_new, in_paper_style, new_figure
from sae_geometry.plots.text import put_caption, put_legend, put_title, room, shortened


@in_paper_style
def span_curve(span: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the share of unmatched directions in the span of their k nearest latents, and its null expectation."""
    ax = axes_or_new(ax, height=3.0)
    where = range(len(span.n_nearest))
    who = shortened(span.b.name, 0.4 * room(ax))
    for values, color, label in (
        (span.explained, NEAREST, f"by {who}"),
        (span.explained_by_chance, MUTED, f"by the turned {who}"),
    ):
        if len(values):
            ax.fill_between(where, *np.quantile(values, (0.25, 0.75), axis=0), color=color, alpha=0.2, linewidth=0)
            ax.plot(where, values.mean(axis=0), color=color, marker="o", markersize=2.5, label=label)
    ax.set_xticks(where, [f"{k}" for k in span.n_nearest])
    ax.set(xlabel="number of nearest latents", ylabel="share of the direction in their span", ylim=(0, 1))
    if not len(span.explained):
        ax.text(0.5, 0.5, "every latent has a partner", transform=ax.transAxes, ha="center", fontsize=7, color=MUTED)
        return ax
    put_legend(ax, loc="upper left", legend=legend)
    put_caption(ax, "mean; shaded: middle 50% of latents")
    return ax


@in_paper_style
def span_figure(span: Any) -> Figure:
    """Return a figure with the span of the nearest latents next to the overlap of leading subspaces."""
    figure = new_figure(height=3.1)
    left, right = figure.subplots(1, 2)
    span_curve(span, ax=left)
    right.set_title("leading subspaces", loc="left", fontsize=7)
    right.set(xlabel="rank of the subspaces", ylabel="mean cos² of principal angles", ylim=(0, 1))
    a, b = (shortened(d.name, 0.25 * room(figure), 8, "bold") for d in (span.a, span.b))
    unmatched = counted(len(span.unmatched), "latent")
    put_title(figure, f"{unmatched} of {a} without a partner above {span.threshold:g} in {b}")
    if not span.ranks:
        right.set_xticks([])
        why = "no latent without a partner" if not len(span.unmatched) else "no latent with a partner"
        right.text(0.5, 0.5, why, transform=right.transAxes, ha="center", fontsize=7, color=MUTED)
        return figure
    where = range(len(span.ranks))
    right.plot(where, span.overlap, color=NEAREST, marker="o", markersize=2.5, label="matched latents")
    if not np.isnan(span.overlap_by_chance).all():
        right.plot(where, span.overlap_by_chance, color=MUTED, marker="o", markersize=2.5, label="expected by chance")
    right.plot(where, span.overlap_isotropic, color=MUTED, linestyle=":", label="isotropic")
    right.set_xticks(where, [f"{r}" for r in span.ranks])
    put_legend(right)
    return figure
