"""How alike, and who claims whom: histogram and ECDF of the similarity, bars of multiplicity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sae_geometry.partners import Matching
from sae_geometry.plots.style import COLUMN_WIDTH, INK, MUTED, OKABE_ITO, axes_or_new, in_paper_style, new_figure

NEAREST, ONE_TO_ONE, SECOND = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[5]
THRESHOLD = 0.7
_GRID = 2001
_BINS = 50


@in_paper_style
def similarity_ecdf(curves: Sequence[Matching], ax: Axes | None = None) -> Axes:
    """Share of latents whose similarity is at most t, for every t; chance as a vertical line.

    Line style is direction (solid forth, dashed back), colour is the way of counting. Every latent of the source
    counts: those that a one-to-one matching leaves without a partner lift its curve from the start.

    Args:
        curves: one or more `Matching`.
        ax: axes to draw on; a new figure if None.
    """
    ax = axes_or_new(ax, height=2.6)
    drawn = _distinct(curves)
    low, high = _range(drawn)
    grid = np.linspace(low, high, _GRID)
    for curve, label in drawn:
        matched = np.sort(curve.similarity[~np.isnan(curve.similarity)])
        unmatched = curve.n_latents - len(matched)
        share = (unmatched + np.searchsorted(matched, grid, side="right")) / curve.n_latents
        ax.plot(grid, share, color=_color(curve), linestyle=_dash(curve, drawn), label=label)
    _chance_lines(ax, drawn)
    ax.set(xlim=(low, high), ylim=(0, 1.0), xlabel=_axis_name(drawn), ylabel="share of latents at or below")
    _legend(ax, drawn)
    return ax


@in_paper_style
def similarity_histogram(curves: Sequence[Matching], ax: Axes | None = None) -> Axes:
    """Share of latents in each of 50 bins that all curves have in common; chance as a vertical line.

    Args:
        curves: one or more `Matching`.
        ax: axes to draw on; a new figure if None.
    """
    ax = axes_or_new(ax, height=2.0)
    drawn = _distinct(curves)
    low, high = _range(drawn)
    bins = np.linspace(low, high, _BINS + 1)
    for curve, _ in drawn:
        values = curve.similarity[~np.isnan(curve.similarity)]
        sns.histplot(
            x=values,
            bins=list(bins),
            weights=np.full(len(values), 1 / curve.n_latents),
            element="step",
            fill=_dash(curve, drawn) == "-",
            alpha=0.18 if _dash(curve, drawn) == "-" else 1.0,
            color=_color(curve),
            linestyle=_dash(curve, drawn),
            linewidth=1.0,
            ax=ax,
        )
    _chance_lines(ax, drawn)
    ax.set(xlim=(low, high), xlabel=_axis_name(drawn), ylabel="share of latents")
    ax.set_ylim(bottom=0)
    return ax


@in_paper_style
def similarity_figure(curves: Sequence[Matching]) -> Figure:
    """The histogram over the ECDF, one horizontal axis: the figure of a comparison."""
    figure = new_figure(COLUMN_WIDTH * 1.25, 3.9)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.1))
    similarity_histogram(curves, ax=top)
    top.set_xlabel("")
    similarity_ecdf(curves, ax=bottom)
    for text in list(bottom.texts):  # chance is named once, at the top
        text.remove()
    first = curves[0]
    same = first.source == first.target
    top.set_title(first.source if same else f"{first.source}  ⇄  {first.target}", loc="left", fontweight="bold")
    return figure


@in_paper_style
def multiplicity_bars(curves: Sequence[Matching], ax: Axes | None = None) -> Axes:
    """How many target latents are taken 0, 1, 2, … times: where double counting sits.

    Args:
        curves: one or two directions of a nearest matching; filled bars for the first, open bars for the second.
        ax: axes to draw on; a new figure if None.
    """
    ax = axes_or_new(ax, height=2.2)
    edges = [0, 1, 2, 3, 4, 5, 6, 11, np.inf]
    names = ["0", "1", "2", "3", "4", "5", "6–10", "> 10"]
    width = 0.8 / len(curves)
    handles = []
    for at, curve in enumerate(curves):
        counts = np.histogram(curve.multiplicity, bins=edges)[0]
        style: dict[str, Any] = {"facecolor": NEAREST if at == 0 else "white", "edgecolor": NEAREST, "linewidth": 0.8}
        if at:
            style |= {"hatch": "//////"}
        where = np.arange(len(names)) + (at - (len(curves) - 1) / 2) * width
        bars = ax.bar(where, counts, width * 0.92, **style)
        ax.bar_label(bars, [f"{c:,}" if c else "" for c in counts], fontsize=6, padding=1, color=INK)
        share = (curve.multiplicity == 0).mean()
        handles.append(Patch(label=f"{curve.source} → {curve.target}: {share:.0%} never taken", **style))
    ax.set(xlabel="times taken as nearest partner", ylabel="latents of the target")
    ax.set_xticks(range(len(names)), names)
    ax.margins(y=0.12)
    ax.legend(handles=handles, loc="upper right", handlelength=1.4)
    return ax


def _distinct(curves: Sequence[Matching]) -> list[tuple[Matching, str]]:
    """Curves with their labels, a one-to-one matching of equal sizes shown once: both directions are the same pairs."""
    if not curves:
        raise ValueError("there is nothing to draw: give at least one matching")
    out: list[tuple[Matching, str]] = []
    for curve in curves:
        twin = next(
            (c for c, _ in out if c.method == curve.method != "nearest" and c.n_latents == curve.n_latents), None
        )
        if twin is None and curve not in [c for c, _ in out]:
            out.append((curve, ""))
    return [(c, _label(c, [k for k, _ in out])) for c, _ in out]


def _label(curve: Matching, all_curves: Sequence[Matching]) -> str:
    numbers = f"mean {curve.mmcs:.2f}, {curve.fraction_above(THRESHOLD):.0%} > {THRESHOLD}"
    if curve.source == curve.target:
        return f"nearest other latent\nn = {curve.n_latents:,}, {numbers}"
    alone = curve.method != "nearest" and sum(c.method == curve.method for c in all_curves) == 1
    way = "both ways" if alone else f"{curve.source} → {curve.target}"
    if curve.method == "nearest":
        return f"nearest, {way}\nn = {curve.n_latents:,}, {numbers}"
    return f"one-to-one ({curve.method}), {way}\nn = {curve.n_matched:,}, {numbers}"


def _legend(ax: Axes, drawn: Sequence[tuple[Matching, str]]) -> None:
    values = np.concatenate([c.similarity[~np.isnan(c.similarity)] for c, _ in drawn])
    low, high = ax.get_xlim()
    to_the_right = len(values) and np.median(values) < low + 0.55 * (high - low)
    handles = [Line2D([], [], color=_color(c), linestyle=_dash(c, drawn), label=label) for c, label in drawn]
    ax.legend(
        handles=handles,
        loc="lower right" if to_the_right else "upper left",
        handlelength=1.8,
        labelspacing=0.55,
        fontsize=6.5,
        borderaxespad=0.3,
    )


def _chance_lines(ax: Axes, drawn: Sequence[tuple[Matching, str]]) -> None:
    values = sorted({round(c.chance, 3) for c, _ in drawn if not np.isnan(c.chance)})
    for value in values:
        ax.axvline(value, color=MUTED, linewidth=0.8, linestyle=(0, (1, 1.5)), zorder=0)
    if values:
        text = (
            f"chance {values[0]:.2f}" if values[-1] - values[0] < 0.02 else f"chance {values[0]:.2f}–{values[-1]:.2f}"
        )
        ax.text(
            values[0],
            1.0,
            f" {text}",
            color=MUTED,
            fontsize=6.5,
            ha="left",
            va="top",
            transform=ax.get_xaxis_transform(),
        )


def _range(drawn: Sequence[tuple[Matching, str]]) -> tuple[float, float]:
    values = np.concatenate([c.similarity[~np.isnan(c.similarity)] for c, _ in drawn])
    low = min(0.0, float(values.min())) if len(values) else 0.0
    return float(np.floor(low * 20) / 20), 1.0


def _axis_name(drawn: Sequence[tuple[Matching, str]]) -> str:
    kind = "cosine" if drawn[0][0].signed else "|cosine|"
    if all(c.source == c.target for c, _ in drawn):
        return f"{kind} to the nearest other latent"
    return f"{kind} to the partner"


def _color(curve: Matching) -> str:
    return NEAREST if curve.method == "nearest" else ONE_TO_ONE


def _dash(curve: Matching, drawn: Sequence[tuple[Matching, str]]) -> Literal["-", "--"]:
    first = drawn[0][0]
    return "-" if (curve.source, curve.target) == (first.source, first.target) else "--"
