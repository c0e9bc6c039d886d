"""Figures of how features continue through layers: chains bundled by the layer at which they start, and counts."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from sae_geometry.plots.style import INK, MUTED, PAGE_WIDTH, axes_or_new, in_paper_style, new_figure
from sae_geometry.plots.text import put_caption, put_legend

_BAR = 0.12  # half the width of a column, in layers
_TAIL = 0.2  # length of the bundles of chains that end, in layers
_COLORMAP = "viridis"


@in_paper_style
def flow_bundles(flow: Any, ax: Axes | None = None) -> Axes:
    """Draw one column per layer, divided by the layer at which chains start, and bundles of chains between columns.

    A bundle is as high as the number of chains that continue; chains that end are gray. Single latents are not drawn,
    so the number of shapes depends only on the number of layers.
    """
    ax = axes_or_new(ax, PAGE_WIDTH, 3.4)
    alive = np.asarray(flow.survivors, dtype=float)
    n = len(alive)
    colors = mpl.colormaps[_COLORMAP](np.linspace(0.05, 0.92, n))
    tops = np.cumsum(alive, axis=0)
    bottoms = tops - alive
    for start in range(n):
        for at in range(start, n):
            low, high = bottoms[start, at], tops[start, at]
            if high > low:
                ax.bar(at, high - low, 2 * _BAR, low, color=colors[start], linewidth=0)
            if at == n - 1 or high == low:
                continue
            onward = alive[start, at + 1]
            to = (bottoms[start, at + 1], tops[start, at + 1])
            if onward:
                _bundle(ax, at + _BAR, (low, low + onward), at + 1 - _BAR, to, colors[start], 0.45)
            if onward < high - low:
                middle = (low + onward + high) / 2
                _bundle(ax, at + _BAR, (low + onward, high), at + _BAR + _TAIL, (middle, middle), MUTED, 0.5, zorder=2)
    ax.set_xticks(range(n), flow.layer_names)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.set(xlim=(-0.4, n - 0.6), ylim=(0, tops[-1].max() * 1.02), xlabel="layer", ylabel="latents")
    put_caption(
        ax,
        f"{alive[0, -1]:,.0f} of {alive[0, 0]:,.0f} latents of layer {flow.layer_names[0]} survive to layer "
        f"{flow.layer_names[-1]}; color: layer at which a chain starts; gray: chains that end",
    )
    return ax


@in_paper_style
def flow_counts(flow: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the numbers of births, deaths, splits and merges per step."""
    ax = axes_or_new(ax, PAGE_WIDTH, 1.4)
    x = np.arange(len(flow.steps)) + 0.5
    for key, name, style, color in (
        ("n_births", "born", "o-", INK), ("n_deaths", "die", "s-", MUTED),
        ("n_splits", "split off", "^--", INK), ("n_merges", "merge", "v--", MUTED),
    ):  # fmt: skip
        ax.plot(x, [getattr(s, key) for s in flow.steps], style, color=color, markersize=3, linewidth=0.9, label=name)
    ax.set(xlim=(-0.4, len(flow.steps) + 0.4), ylabel="per step")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    put_legend(ax, legend=legend)
    return ax


@in_paper_style
def flow_figure(flow: Any) -> Figure:
    """Return a figure with the bundles of chains above the counts per step."""
    figure = new_figure(height=4.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    flow_bundles(flow, ax=above)
    above.set_xlabel("")
    flow_counts(flow, ax=below)
    below.set_xlabel("layer")
    return figure


def _bundle(
    ax: Axes, x0: float, from_: tuple[float, float], x1: float, to: tuple[float, float], color: Any, alpha: float,
    zorder: int = 1,
) -> None:  # fmt: skip
    """Draw a smooth band from the vertical interval `from_` at x0 to the interval `to` at x1."""
    middle = (x0 + x1) / 2
    points = [
        (x0, from_[0]), (middle, from_[0]), (middle, to[0]), (x1, to[0]),
        (x1, to[1]), (middle, to[1]), (middle, from_[1]), (x0, from_[1]), (x0, from_[0]),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    ax.add_patch(PathPatch(Path(points, codes), facecolor=color, alpha=alpha, linewidth=0, zorder=zorder))
