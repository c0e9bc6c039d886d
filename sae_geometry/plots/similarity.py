"""Figures of a comparison: histogram and ECDF of similarity, multiplicity, and mean similarity per matching.

Dictionaries are lettered in order of appearance, with their names in the title, so that labels stay short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, withStroke
from matplotlib.ticker import MaxNLocator

from sae_geometry.io.formatting import counted
from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.pairwise.certainty import coverage_curve
from sae_geometry.pairwise.double_counting import DoubleCounting
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.plots.style import (
    COLUMN_WIDTH,
    INK,
    MUTED,
    NEAREST,
    ONE_TO_ONE,
    RUNS,
    axes_or_new,
    in_paper_style,
    lower_end,
    new_figure,
)
from sae_geometry.plots.text import (
    LABEL_SIZE,
    fitting_size,
    lettered,
    makes_room,
    put_legend,
    room,
    shortened,
    width_of,
)

_GRID = 2001
_BINS = 50
_HALO = [withStroke(linewidth=2.4, foreground="white"), Normal()]


@dataclass(frozen=True)
class Curve:
    """Matching to draw, with its color, line style, full label and short label."""

    matching: Matching
    label: str
    short: str
    color: str
    dash: Literal["-", "--"]

    @property
    def values(self) -> np.ndarray:
        """Return the similarities of latents with a partner."""
        similarity = self.matching.similarity
        # Unit rows are rounded to float32, so a cosine can exceed 1 by 1e-8 and leave the axis.
        return np.clip(similarity[~np.isnan(similarity)], -1.0, 1.0)


@in_paper_style
def similarity_ecdf(
    curves: Sequence[Matching], ax: Axes | None = None, *, threshold: float = THRESHOLD, legend: bool = True
) -> Axes:
    """Draw the ECDF of similarity: the share of latents at or below each value.

    Vertical lines mark null expectations: dashed in the color of a curve, or faint and dotted for isotropic directions.
    Curves are solid from A to B and dashed from B to A; their color shows the kind of matching. Latents without a
    partner count as below every value, so they raise the curve of a one-to-one matching from the start.

    Args:
        threshold: the legend gives the share of latents above this similarity.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH * 1.25, 3.5)
    drawn = _drawn(curves, threshold)
    _draw_ecdf(ax, drawn)
    _name(ax, drawn, loc="upper left", legend=legend)
    return ax


@in_paper_style
def similarity_histogram(
    curves: Sequence[Matching], ax: Axes | None = None, *, threshold: float = THRESHOLD, legend: bool = True
) -> Axes:
    """Draw histograms of similarity over 50 shared bins, with null expectations as in `similarity_ecdf`.

    Args:
        curves: one or more `Matching`; the first is filled.
        threshold, legend: as in `similarity_ecdf`.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH * 1.25, 3.1)
    drawn = _drawn(curves, threshold)
    _draw_histogram(ax, drawn)
    handles = [Line2D([], [], color=c.color, linestyle=c.dash, label=c.label) for c in drawn]
    _name(ax, drawn, handles, legend=legend)
    return ax


@in_paper_style
def similarity_figure(curves: Sequence[Matching], *, threshold: float = THRESHOLD) -> Figure:
    """Return the figure of a comparison: a histogram above an ECDF, with a shared horizontal axis."""
    drawn = _drawn(curves, threshold)
    figure = new_figure(COLUMN_WIDTH * 1.25, 3.5 + 0.26 * (len(drawn) + len(_chance_handles(drawn))))
    draw_similarity(figure, curves, threshold=threshold)
    return figure


@in_paper_style
def draw_similarity(figure: Figure | SubFigure, curves: Sequence[Matching], *, threshold: float = THRESHOLD) -> None:
    """Draw a histogram above an ECDF in a figure or subfigure with constrained layout."""
    drawn = _drawn(curves, threshold)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.9))
    _draw_histogram(top, drawn)
    _draw_ecdf(bottom, drawn)
    top.set_xlabel("")
    top.set_title(_title(drawn, room(top)), loc="left", fontweight="bold")
    figure.align_ylabels([top, bottom])
    put_legend(bottom, [*bottom.get_legend_handles_labels()[0], *_chance_handles(drawn)])


@in_paper_style
def certainty_curve(
    curves: Sequence[tuple[Matching, np.ndarray]],
    ax: Axes | None = None,
    *,
    threshold: float = THRESHOLD,
    legend: bool = True,
) -> Axes:
    """Draw the mean similarity of the most certain pairs against their share of the latents.

    Args:
        curves: matchings, each with the margins [n] by which its pairs are ordered; see `Certainty.least`.
        threshold: as in `similarity_ecdf`.
    """
    ax = axes_or_new(ax)
    margins = {id(m): margin for m, margin in curves}
    drawn = _drawn([m for m, _ in curves], threshold)
    for curve in drawn:
        share, mean = coverage_curve(curve.matching.similarity, margins[id(curve.matching)])
        ax.plot(share, mean, color=curve.color, linestyle=curve.dash, label=curve.label)
    ax.set(xlim=(0, 1), ylim=(None, 1), xlabel="share of latents, most certain first", ylabel="mean similarity")
    _name(ax, drawn, loc="lower left", legend=legend, chance=False)
    return ax


@in_paper_style
def multiplicity_bars(curves: Sequence[Matching], ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw how many target latents are the nearest partner of 0, 1, 2, … source latents.

    Args:
        curves: one or two directions of a nearest matching; filled bars for the first, hatched bars for the second.
    """
    ax = axes_or_new(ax, height=3.2)
    letters = _letters(curves)
    edges = [0, 1, 2, 3, 4, 5, 6, 11, np.inf]
    names = ["0", "1", "2", "3", "4", "5", "6–10", "> 10"]
    height = 0.86 / len(curves)
    counts = [np.histogram(matching.multiplicity, bins=edges)[0] for matching in curves]
    handles = []
    for at, matching in enumerate(curves):
        look: dict[str, Any] = {"facecolor": "white" if at else NEAREST, "edgecolor": NEAREST, "linewidth": 0.8}
        if at:
            look["hatch"] = "//////"
        where = np.arange(len(names)) + (at - (len(curves) - 1) / 2) * height
        bars = ax.barh(where, counts[at], height * 0.9, **look)
        ax.bar_label(bars, [f"{c:,}" if c else "" for c in counts[at]], fontsize=5.5, padding=2, color=INK)
        never = (matching.multiplicity == 0).mean()
        source, target = letters[matching.source], letters[matching.target]
        handles.append(Patch(label=f"{source} → {target}: {never:.0%} never taken", **look))
    most = max(int(c.max()) for c in counts)
    text = width_of(f"{most:,}", 5.5) + 6
    ax.set(ylabel="times taken as nearest partner", xlabel="latents of the target")
    ax.set(xlim=(0, max(most, 1) * room(ax) / (room(ax) - text)), ylim=(len(names) - 0.4, -0.6))
    ax.set_yticks(range(len(names)), names)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    # Few latents are taken often, so the lower bars are short and leave room for the legend.
    _name(ax, _drawn(curves), handles, loc="lower right", legend=legend, chance=False)
    return ax


@in_paper_style
def counting_bars(counting: DoubleCounting, nearest: Matching, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw the mean similarity of each matching (nearest in both directions, mutual, greedy, optimal).

    The number of pairs is above each bar; a tick across it marks the null expectation of that matching, if known.

    Args:
        counting: the decomposition of double counting.
        nearest: a nearest matching, for the names of the dictionaries and the quantity.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH * 1.15, 2.6)
    means = [c.mean_similarity for c in counting.counts]
    colors = [NEAREST if c.matching == "nearest" else ONE_TO_ONE for c in counting.counts]
    where = np.arange(len(means))[::-1]
    ax.barh(where, means, color=colors, height=0.34)
    low, high = min(0.0, *means), max(1.0, *means)
    lines = []
    for y, c in zip(where, counting.counts, strict=True):
        known = not np.isnan(c.chance)
        numbers = f"{c.mean_similarity:.3f}" + (f" (chance {c.chance:.3f})" if known else "")
        lines.append(f"{c.name}: {numbers}, {counted(c.n_pairs, 'pair')}")
        if known:
            ax.plot([c.chance] * 2, [y - 0.24, y + 0.24], color=INK, linewidth=0.9, path_effects=_HALO)
    size = fitting_size(lines, room(ax))
    lowest = -0.4 if makes_room(ax) or not legend else -1.9  # A legend inside the axes goes under the bars.
    for y, line in zip(where, lines if size else [], strict=bool(size)):
        ax.text(low, y + 0.27, line, va="bottom", fontsize=size)
    ax.set(xlim=(low, high), ylim=(lowest, len(means) - 0.1), yticks=[], xlabel=f"mean {nearest.quantity}")
    ax.spines["left"].set_visible(False)
    chance = Line2D([], [], color=INK, linewidth=0.9, label="expected by chance", path_effects=_HALO)
    _name(ax, _drawn([nearest]), [chance], loc="lower right", legend=legend, chance=False)
    return ax


def _draw_ecdf(ax: Axes, drawn: Sequence[Curve]) -> None:
    low, high = _range(drawn)
    grid = np.linspace(low, high, _GRID)
    for curve in drawn:
        values, n = np.sort(curve.values), curve.matching.n_latents
        share = (n - len(values) + np.searchsorted(values, grid, side="right")) / n
        ax.plot(grid, share, color=curve.color, linestyle=curve.dash, label=curve.label)
    _draw_chance(ax, drawn)
    ax.set(xlim=(low, high), ylim=(0, 1.0), xlabel=_axis_name(drawn), ylabel="share of latents at or below")


def _draw_histogram(ax: Axes, drawn: Sequence[Curve]) -> None:
    low, high = _range(drawn)
    edges = np.linspace(low, high, _BINS + 1)
    for at, curve in enumerate(drawn):
        shares = np.histogram(curve.values, edges)[0] / curve.matching.n_latents
        if at == 0:
            ax.stairs(shares, edges, fill=True, color=curve.color, alpha=0.18)
        ax.stairs(shares, edges, color=curve.color, linestyle=curve.dash, linewidth=1.0)
    _draw_chance(ax, drawn)
    ax.set(xlim=(low, high), xlabel=_axis_name(drawn), ylabel="share of latents")
    ax.set_ylim(bottom=0)


def _draw_chance(ax: Axes, drawn: Sequence[Curve]) -> None:
    chances = _chances(drawn)
    n = min(len(chances), 4)
    for at, (value, color) in enumerate(chances):
        # Coinciding lines are visible in each other's gaps.
        dash = (2.5 * (at % n), (2.5, 2.5 * max(1, n - 1)))
        ax.axvline(value, color=color, linewidth=0.9, linestyle=dash, zorder=0)
    for value in _isotropic(drawn):
        ax.axvline(value, color=MUTED, linewidth=0.7, linestyle=(0, (1, 3)), zorder=0)


def _chance_handles(drawn: Sequence[Curve]) -> list[Line2D]:
    """Return the legend entries of the vertical lines that mark null expectations."""
    handles = []
    if _chances(drawn):
        words = "vertical, dashed: expected by chance, in the color of its curve"
        handles.append(Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (2.5, 2.5)), label=words))
    if values := sorted({f"{v:.2f}" for v in _isotropic(drawn)}):
        words = f"vertical, dotted: nearest of isotropic directions, {'–'.join(values[:: max(1, len(values) - 1)])}"
        handles.append(Line2D([], [], color=MUTED, linewidth=0.7, linestyle=(0, (1, 3)), label=words))
    return handles


def _name(
    ax: Axes,
    drawn: Sequence[Curve],
    handles: Sequence[Artist] | None = None,
    *,
    loc: str = "best",
    legend: bool,
    chance: bool = True,
) -> None:
    """Write the title and legend outside the axes if the figure makes room for them, else both in a legend inside."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    if makes_room(ax):
        ax.set_title(_title(drawn, room(ax)), loc="left", fontweight="bold")
        put_legend(ax, [*handles, *(_chance_handles(drawn) if chance else [])], legend=legend)
        return
    title = _title(drawn, 0.6 * room(ax), LABEL_SIZE)
    short = [c.short for c in drawn] if chance else None
    put_legend(ax, handles, title=title, short=short, loc=loc, legend=legend)


def _title(drawn: Sequence[Curve], width: float, size: float = 8) -> str:
    names = _letters([c.matching for c in drawn])
    if any(c.matching.source != c.matching.target for c in drawn):
        return lettered({letter: name for name, letter in names.items()}, width, size, "bold")
    return shortened(next(iter(names)) if len(names) == 1 else "Similarity within each dictionary", width, size, "bold")


def _drawn(curves: Sequence[Matching], threshold: float = THRESHOLD) -> list[Curve]:
    """Return the curves to draw; a one-to-one matching between dictionaries of the same size appears only once."""
    if not curves:
        raise ValueError("there is nothing to draw: give at least one matching")
    if len({m.quantity for m in curves}) > 1:
        raise ValueError(
            f"all curves must show the same quantity; got {', '.join(sorted({m.quantity for m in curves}))}"
        )
    letters = _letters(curves)
    within = all(m.source == m.target for m in curves)
    out: list[Curve] = []
    for at, m in enumerate(curves):
        if any(_same_pairs(m, earlier) for earlier in curves[:at]):
            continue
        color = ONE_TO_ONE if m.method != "nearest" else NEAREST
        if within and len(curves) > 1:
            color = RUNS[len(out) % len(RUNS)]
        forth = within or letters[m.source] < letters[m.target] or at == 0
        way = "both directions" if any(_same_pairs(m, other) for other in curves) else ""
        short = m.source if within else f"{m.method} {way or f'{letters[m.source]} → {letters[m.target]}'}"
        out.append(Curve(m, _label(m, letters, way, len(curves), threshold), short, color, "-" if forth else "--"))
    return out


def _same_pairs(m: Matching, other: Matching) -> bool:
    """Return whether `other` is the same one-to-one matching, between equal sizes, in the other direction."""
    reverse = (m.source, m.target) == (other.target, other.source) and m.source != m.target
    return reverse and m.method == other.method != "nearest" and m.n_latents == other.n_latents


def _label(m: Matching, letters: dict[str, str], way: str, n_curves: int, threshold: float) -> str:
    chance = "" if np.isnan(m.chance) else f"chance {m.chance:.2f}, "
    numbers = f"mean {m.mean_similarity:.2f}, {chance}{m.fraction_above(threshold):.0%}\u00a0>\u00a0{threshold:g}"
    if m.source == m.target:
        who = f"nearest other latent in {m.source}" if n_curves > 1 else "nearest other latent"
        return f"{who}: n = {m.n_latents:,}, {numbers}"
    way = way or f"{letters[m.source]} → {letters[m.target]}"
    if m.method == "nearest":
        return f"nearest, {way}: n = {m.n_latents:,}, {numbers}"
    if m.n_matched == m.n_latents:
        return f"one-to-one ({m.method}), {way}: n = {m.n_latents:,}, {numbers}"
    return f"one-to-one ({m.method}), {way}: {m.n_matched:,} of {m.n_latents:,} matched, {numbers}"


def _letters(curves: Sequence[Matching]) -> dict[str, str]:
    names = dict.fromkeys(name for m in curves for name in (m.source, m.target))
    return {name: chr(ord("A") + at) if at < 26 else f"A{at}" for at, name in enumerate(names)}


def _chances(drawn: Sequence[Curve]) -> list[tuple[float, str]]:
    """Return the distinct pairs of null expectation and color among the curves."""
    known = [(c.matching.chance, c.color) for c in drawn if not np.isnan(c.matching.chance)]
    return sorted({(round(value, 3), color) for value, color in known})


def _isotropic(drawn: Sequence[Curve]) -> list[float]:
    values = [c.matching.isotropic_chance for c in drawn]
    return sorted({round(value, 3) for value in values if not np.isnan(value)})


def _range(drawn: Sequence[Curve]) -> tuple[float, float]:
    return min((lower_end(c.values) for c in drawn), default=0.0), 1.0


def _axis_name(drawn: Sequence[Curve]) -> str:
    kind = drawn[0].matching.quantity
    within = all(c.matching.source == c.matching.target for c in drawn)
    return f"{kind} to {'the nearest other latent' if within else 'the partner'}"
