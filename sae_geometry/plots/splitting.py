"""Figures of feature splitting: number of children, and share of the parent explained."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_geometry.io.formatting import counted
from sae_geometry.plots.style import (
    COLUMN_WIDTH,
    INK,
    MUTED,
    NEAREST,
    PAGE_WIDTH,
    axes_or_new,
    in_paper_style,
    new_figure,
    plain,
)

_MOST_BARS = 8


@runtime_checkable
class SplitLike(Protocol):
    """Attributes of a `SplitMap` that the figures use."""

    @property
    def narrow(self) -> Any: ...
    @property
    def wide(self) -> Any: ...
    @property
    def combination(self) -> Any: ...
    @property
    def explained_by_chance(self) -> np.ndarray: ...
    @property
    def n_children(self) -> np.ndarray: ...
    @property
    def n_novel(self) -> int: ...


@in_paper_style
def children_bars(split: SplitLike, ax: Axes | None = None) -> Axes:
    """Draw how many narrow latents have 0, 1, 2, … wide children."""
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.4)
    counts = np.bincount(np.minimum(split.n_children, _MOST_BARS), minlength=_MOST_BARS + 1)
    last = int(np.flatnonzero(counts).max())
    names = [f"{k}" if k < _MOST_BARS else f"≥ {k}" for k in range(last + 1)]
    bars = ax.bar(range(last + 1), counts[: last + 1], 0.7, color=NEAREST)
    ax.bar_label(bars, [f"{c:,}" for c in counts[: last + 1]], fontsize=6, padding=1, color=INK)
    ax.set_xticks(range(last + 1), names)
    ax.set(xlabel="wide children", ylabel="narrow latents")
    ax.margins(y=0.1)
    children = split.wide.n_latents - split.n_novel
    ax.set_title(f"{children:,} wide latents are children, {split.n_novel:,} novel", loc="left", fontsize=7)
    return ax


@in_paper_style
def explained_ecdf(split: SplitLike, ax: Axes | None = None) -> Axes:
    """ECDF over narrow latents of the share of their direction that 1, 2, … wide ones explain, beside chance."""
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.6)
    ours, chance = split.combination.explained, split.explained_by_chance
    n_terms = ours.shape[1]
    shades = sns.light_palette(NEAREST, n_terms + 1)[1:]
    grid = np.linspace(0, 1, 501)
    for t in range(n_terms):
        label = f"{t + 1} wide latent{'s' if t else ''}: mean {ours[:, t].mean():.0%}"
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
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=6.5, handlelength=1.6)
    return ax


def _ecdf(values: np.ndarray, grid: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values), grid, side="right") / len(values)


@in_paper_style
def splitting_figure(split: SplitLike) -> Figure:
    """Draw children and explained share side by side."""
    figure = new_figure(PAGE_WIDTH, 2.7)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.0))
    children_bars(split, ax=left)
    explained_ecdf(split, ax=right)
    figure.suptitle(
        f"{plain(split.narrow.name)} ({counted(split.narrow.n_latents, 'latent')}) in {plain(split.wide.name)} "
        f"({split.wide.n_latents:,})",
        x=0.01, ha="left", fontsize=8, fontweight="bold",
    )  # fmt: skip
    return figure
