"""Figures of feature splitting: number of children, and share of the parent's direction explained."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_geometry.io.formatting import counted
from sae_geometry.plots.style import INK, MUTED, NEAREST, axes_or_new, in_paper_style, lighter, new_figure
from sae_geometry.plots.text import fitting_size, put_caption, put_legend, put_title, room, shortened

_MOST_BARS = 8


@in_paper_style
def children_bars(split: Any, ax: Axes | None = None) -> Axes:
    """Draw how many narrow latents have 0, 1, 2, … children in the wide dictionary."""
    ax = axes_or_new(ax)
    counts = np.bincount(np.minimum(split.n_children, _MOST_BARS), minlength=_MOST_BARS + 1)
    last = int(np.flatnonzero(counts).max())
    names = [f"{k}" if k < _MOST_BARS else f"≥ {k}" for k in range(last + 1)]
    bars = ax.bar(range(last + 1), counts[: last + 1], 0.7, color=NEAREST)
    texts = [f"{c:,}" for c in counts[: last + 1]]
    if size := fitting_size(texts, 0.85 * room(ax) / len(texts), 6):
        ax.bar_label(bars, texts, fontsize=size, padding=1, color=INK)
    ax.set_xticks(range(last + 1), names)
    ax.set(xlabel="children in the wide dictionary", ylabel="narrow latents")
    ax.margins(y=0.1)
    children = split.wide.n_latents - split.n_novel
    put_caption(ax, f"{counted(split.wide.n_latents, 'wide latent')}: {children:,} children, {split.n_novel:,} novel")
    return ax


@in_paper_style
def explained_ecdf(split: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the ECDFs of the share of narrow directions that 1, 2, … wide latents explain, with null expectations."""
    ax = axes_or_new(ax, height=3.2)
    ours, chance = split.combination.explained, split.explained_by_chance
    n_terms = ours.shape[1]
    shades = [lighter(NEAREST, 1 - (t + 1) / n_terms) for t in range(n_terms)]
    grid = np.linspace(0, 1, 501)
    for t in range(n_terms):
        label = f"{t + 1} wide: mean {ours[:, t].mean():.0%}"
        ax.plot(grid, _ecdf(ours[:, t], grid), color=shades[t], label=label)
    if len(chance):
        for t in sorted({0, n_terms - 1}):
            label = f"{t + 1} turned: mean {chance[:, t].mean():.0%}"
            ax.plot(
                grid,
                _ecdf(chance[:, t], grid),
                color=MUTED,
                linestyle=(0, (4, 1.5)) if t else (0, (1, 1.2)),
                label=label,
            )
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of the direction explained", ylabel="narrow latents at or below")
    short = [label.split(":")[0] for label in ax.get_legend_handles_labels()[1]]
    put_legend(ax, short=short, loc="upper left", legend=legend)
    return ax


def _ecdf(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values), grid, side="right") / len(values)


@in_paper_style
def splitting_figure(split: Any) -> Figure:
    """Return a figure with the number of children and the explained share side by side."""
    figure = new_figure(height=3.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.0))
    children_bars(split, ax=left)
    explained_ecdf(split, ax=right)
    narrow, wide = (shortened(d.name, 0.2 * room(figure), 8, "bold") for d in (split.narrow, split.wide))
    sizes = f"({counted(split.narrow.n_latents, 'latent')})", f"({split.wide.n_latents:,})"
    put_title(figure, f"{narrow} {sizes[0]} in {wide} {sizes[1]}")
    return figure
