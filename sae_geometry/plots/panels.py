"""Small multiples: a histogram per matching over common bins, and scatter plots of runs against their metrics.

The caller passes colors and labels; `run_colors(…, style="e2e")` gives each panel the color of its run's kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from sae_geometry.plots.style import E2E_KINDS, INK, MUTED, in_paper_style, lower_end, new_figure
from sae_geometry.plots.text import LABEL_SIZE, put_title, room, shortened

if TYPE_CHECKING:
    import pandas as pd

PANEL_BINS = 50
_FAINT = "#555555"
_MARKERS = {"local": "^", "e2e": "o", "e2e+ds": "X"}


@in_paper_style
def draw_panels(
    figure: Figure | SubFigure,
    curves: Sequence[Any],
    *,
    labels: Sequence[str],
    colors: Sequence[str],
    title: str = "",
    xlabel: str = "cosine to the nearest latent",
    low: float | None = None,
    top: float | None = None,
) -> list[Axes]:
    """Fill a figure or subfigure with one histogram per matching over the same 50 bins, and return the axes.

    Bars are shares of the source's latents, on a shared vertical axis, so areas are comparable. Lines mark the mean
    (dashed) and the null expectations (dotted) against the turned target (dark) and isotropic directions (faint).

    Args:
        figure: figure or subfigure with constrained layout.
        curves: `Matching`s, or objects with the same attributes.
        low, top: lower limit of similarity and upper limit of share; derived from the curves if None.

    Raises:
        ValueError: there are no curves, or the numbers of curves, labels and colors differ.
    """
    if not curves or not len(curves) == len(labels) == len(colors):
        sizes = f"{len(curves)} matchings, {len(labels)} labels and {len(colors)} colors"
        raise ValueError(f"every panel needs one label and one color; got {sizes}")
    start = panel_range(curves) if low is None else low
    edges = np.linspace(start, 1.0, PANEL_BINS + 1)
    axes = np.atleast_1d(figure.subplots(len(curves), 1, sharex=True, sharey=True))
    for ax, curve, label, color in zip(axes, curves, labels, colors, strict=True):
        ax.stairs(panel_shares(curve, edges), edges, fill=True, color=color, alpha=0.85)
        ax.axvline(curve.mean_similarity, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        for value, ink, width, dash in (
            (curve.chance, INK, 0.9, (1, 1.5)),
            (curve.isotropic_chance, _FAINT, 0.6, (1, 4)),
        ):
            if not np.isnan(value):
                ax.axvline(value, color=ink, linewidth=width, linestyle=(0, dash))
        ax.set_title(shortened(label, room(ax), 7.5), loc="left", fontsize=7.5, color=color, pad=2)
        text = f"n = {curve.n_latents:,}\nmean {curve.mean_similarity:.3f}"
        text += "" if np.isnan(curve.chance) else f"\nchance {curve.chance:.3f}"
        x, side = _room(panel_shares(curve, edges), top, (curve.mean_similarity - start) / (1 - start))
        ax.text(
            x, 0.94, text, transform=ax.transAxes, ha=side, va="top", fontsize=LABEL_SIZE, linespacing=1.25,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axes[-1].set(xlim=(start, 1.0), xlabel=xlabel)
    axes[0].set_ylim(0, top)
    figure.supylabel("share of latents", fontsize=8)
    for ax in axes:
        ax.yaxis.set_major_locator(MaxNLocator(2))
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    if title:
        put_title(figure, title)
    return list(axes)


def _room(shares: np.ndarray, top: float | None, mean: float) -> tuple[float, Literal["left", "center", "right"]]:
    """Return the x position and alignment of text, which goes above low bars and next to a mean in the middle."""
    thirds = [part.max() / (top or 1.05 * shares.max()) for part in np.array_split(shares, 3)]
    places: list[tuple[float, float, Literal["left", "center", "right"]]] = [
        (thirds[2], 0.985, "right"), (thirds[0], 0.015, "left"), (thirds[1], 0.5, "center")
    ]  # fmt: skip
    _, x, side = next((p for p in places if p[0] < 0.5), min(places))
    if side == "center" and abs(mean - x) < 0.2:
        return (mean + 0.015, "left") if mean < 0.62 else (mean - 0.015, "right")
    return x, side


def panel_range(curves: Sequence[Any]) -> float:
    """Return the start of the common bins: 0, or a negative minimum rounded down to a multiple of 0.05."""
    return min((lower_end(c.similarity) for c in curves), default=0.0)


def panel_shares(curve: Any, edges: np.ndarray) -> np.ndarray:
    """Return the share of latents per bin, float64 [bins]; unmatched latents count in the denominator only."""
    found = curve.similarity[np.isfinite(curve.similarity)]
    counts = np.histogram(np.clip(found, edges[0], 1.0), edges)[0]
    return np.asarray(counts / max(1, curve.n_latents))


@in_paper_style
def facet_figure(points: pd.DataFrame, xs: Mapping[str, str]) -> Figure:
    """Return a figure of mean max cosine against metrics, a point per run: one row per group, one column per metric.

    Args:
        points: one run per row, with the columns mmcs, row (the group), kind (sets color and marker as in the
            end-to-end paper; gray for other kinds) and the metrics in `xs`; nan where unknown.
        xs: axis label of each metric, in order; a panel without known values says "not available".

    Raises:
        ValueError: a missing column, or no runs.
    """
    wanted = ["mmcs", "row", "kind", *xs]
    missing = [c for c in wanted if c not in points.columns]
    if missing or points.empty:
        raise ValueError(f"the points need columns {', '.join(wanted)} and at least one run; missing: "
                         f"{', '.join(missing) or 'runs'}")  # fmt: skip
    rows = list(dict.fromkeys(points["row"]))
    figure = new_figure(height=0.75 + 1.55 * len(rows))
    grid: Any = figure.subplots(len(rows), len(xs), sharey=True, sharex="col", squeeze=False)
    for axes, name in zip(grid, rows, strict=True):
        group = points[points["row"] == name]
        for ax, x in zip(axes, xs, strict=True):
            _facet(ax, group, x)
        axes[0].set_title(shortened(str(name), room(axes[0]), 7.5, "bold"), loc="left", fontsize=7.5, fontweight="bold")
        axes[0].set_ylabel("mean max cosine")
    for ax, text in zip(grid[-1], xs.values(), strict=True):
        ax.set_xlabel(text)
    grid[0, 0].margins(0.15)
    handles = [grid[0, 0].scatter([], [], s=18, label=str(k), **_look(k)) for k in dict.fromkeys(points["kind"])]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=7)
    return figure


def _facet(ax: Axes, group: pd.DataFrame, x: str) -> None:
    known = group[group[x].notna() & group["mmcs"].notna()]
    for kind, part in known.groupby("kind", sort=False):
        ax.scatter(part[x], part["mmcs"], s=22, linewidths=0, alpha=0.9, **_look(kind))
    if known.empty:
        ax.text(0.5, 0.5, "not available", transform=ax.transAxes, ha="center", va="center", color=MUTED)
        ax.set_xticks([])
    elif len(known) < len(group):
        ax.text(
            0.98, 0.03, f"{len(group) - len(known)} of {len(group)} not available", transform=ax.transAxes,
            ha="right", fontsize=6, color=MUTED,
        )  # fmt: skip
    ax.margins(0.15)


def _look(kind: Any) -> dict[str, Any]:
    return {"color": E2E_KINDS.get(str(kind), MUTED), "marker": _MARKERS.get(str(kind), "s")}
