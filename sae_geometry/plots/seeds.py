"""Figures of many runs: pairwise matrices, ridgelines, recurrence and rarefaction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sae_geometry.io.formatting import counted
from sae_geometry.pairwise.pair_record import N_BINS
from sae_geometry.plots.style import COLUMN_WIDTH, INK, NEAREST, ONE_TO_ONE, axes_or_new, in_paper_style, new_figure
from sae_geometry.plots.text import (
    LABEL_SIZE,
    SMALLEST,
    fitting_size,
    makes_room,
    put_caption,
    put_legend,
    put_note,
    room,
    shortened,
    width_of,
)

_MOST_NAMED = 30
_MOST_RIDGES = 24
_NAME = 62.0  # width of a run's name in points
_SAME, _DIFFERENT = NEAREST, ONE_TO_ONE
_DOTTED = (0, (1, 1))


@in_paper_style
def seeds_heatmap(seeds: Any, what: str = "mmcs", ax: Axes | None = None) -> Axes:
    """Draw a matrix over pairs of runs, with sources in rows, groups in blocks, and null expectations in small print.

    Args:
        seeds: a `SeedComparison`.
        what: the matrix to draw: "mmcs", "paired" or "shared".

    Raises:
        ValueError: `what` is not one of these.
    """
    titles = {
        "mmcs": "MMCS (nearest)",
        "paired": f"{seeds.paired_name} (one-to-one)",
        "shared": f"shared (one-to-one > {seeds.threshold:g})",
    }
    if what not in titles:
        raise ValueError(f"the matrix must be one of {', '.join(titles)}; got {what!r}")
    import seaborn as sns

    ax = axes_or_new(ax, height=COLUMN_WIDTH * 0.95)
    order = np.argsort([list(dict.fromkeys(seeds.groups)).index(k) for k in seeds.groups], kind="stable")
    matrix = getattr(seeds, what)[np.ix_(order, order)]
    n = len(order)
    cell = min(room(ax), float(ax.bbox.height * 72 / ax.figure.dpi)) / n
    sns.heatmap(
        matrix, vmin=0, vmax=1, cmap="crest", cbar=False, square=True, linewidths=0.4 if n <= _MOST_NAMED else 0,
        linecolor="white", ax=ax, xticklabels=False, yticklabels=False, rasterized=n > _MOST_NAMED,
    )  # fmt: skip
    chance = {"mmcs": seeds.chance, "paired": seeds.paired_chance, "shared": seeds.shared_chance}[what]
    _annotate(ax, matrix, chance[np.ix_(order, order)], what == "shared", cell)
    for at in range(1, n):
        if seeds.groups[order[at]] != seeds.groups[order[at - 1]]:
            ax.axhline(at, color=INK, linewidth=1.0)
            ax.axvline(at, color=INK, linewidth=1.0)
    size = min(LABEL_SIZE, cell / 1.3)
    if size >= SMALLEST:
        name_width = _NAME if makes_room(ax) else 24.0  # Without a layout, names share the gap between axes.
        names = [shortened(seeds.labels[k], name_width, size) for k in order]
        ax.set_yticks(np.arange(n) + 0.5, names, rotation=0, fontsize=size)
        ax.set_xticks(np.arange(n) + 0.5, names, rotation=90, fontsize=size)
    ax.tick_params(length=0, pad=2)
    put_caption(ax, titles[what], 8)
    return ax


@in_paper_style
def seeds_figure(seeds: Any) -> Figure:
    """Return a figure of the three matrices (nearest, one-to-one, shared) with a color bar."""
    names = max(width_of(shortened(label, _NAME), LABEL_SIZE) for label in seeds.labels) / 72
    figure = new_figure(height=2.32 + names)  # Leave room for names below the square cells.
    axes: Any = figure.subplots(1, 3, sharey=False)
    for ax, what in zip(axes, ("mmcs", "paired", "shared"), strict=True):
        seeds_heatmap(seeds, what, ax=ax)
    for ax in axes[1:]:
        ax.set_yticks([])
    bar = figure.colorbar(axes[-1].collections[0], ax=list(axes), shrink=0.5, pad=0.01, aspect=15)
    bar.ax.tick_params(labelsize=LABEL_SIZE)
    bar.outline.set_visible(False)
    note = "row: source; column: target"
    if any(ax.texts for ax in axes):
        note += "; small print: expected by chance, against the turned run"
    put_note(figure, note)
    return figure


@in_paper_style
def ridgeline_figure(seeds: Any) -> Figure:
    """Return a figure with a ridge of nearest similarities per ordered pair of runs, or of groups if runs are many."""
    ridges = _ridges(seeds)
    figure = new_figure(COLUMN_WIDTH * 1.5, 1.0 + 0.27 * len(ridges))
    ax = figure.subplots()
    for at, (label, counts, chance, same) in enumerate(ridges):
        density = _smooth(counts)
        base = len(ridges) - 1 - at
        edges = np.linspace(-1, 1, len(density) + 1)
        centers = (edges[1:] + edges[:-1]) / 2
        color = _SAME if same else _DIFFERENT
        heights = base + 1.6 * density / max(density.max(), 1e-9)
        ax.fill_between(centers, base, heights, color=color, alpha=0.45, linewidth=0, zorder=at)
        ax.plot(centers, heights, color=color, linewidth=0.8, zorder=at)
        ax.plot([chance, chance], [base, base + 0.85], color=INK, linewidth=0.8, linestyle=_DOTTED, zorder=at + 0.5)
        ax.text(-0.02, base + 0.08, label, ha="right", fontsize=LABEL_SIZE, transform=ax.get_yaxis_transform())
    low = min((float(np.flatnonzero(c)[0]) / len(c) * 2 - 1 for _, c, _, _ in ridges if c.any()), default=0.0)
    ax.set(
        xlim=(min(0.0, low), 1.0), ylim=(-0.05, len(ridges) + 0.8), xlabel="similarity to the nearest latent", yticks=[]
    )
    ax.spines["left"].set_visible(False)
    kinds = {same for _, _, _, same in ridges}
    handles: list[Artist] = [
        Patch(color=color, alpha=0.45, label=label)
        for same, color, label in ((True, _SAME, "same group"), (False, _DIFFERENT, "different groups"))
        if same in kinds and len(kinds) > 1
    ]
    put_legend(ax, [*handles, Line2D([], [], color=INK, linewidth=0.8, linestyle=_DOTTED, label="by chance")])
    return figure


@in_paper_style
def recurrence_bars(seeds: Any, ax: Axes | None = None) -> Axes:
    """Draw the share of latents found in exactly 0, 1, … N−1 other runs."""
    ax = axes_or_new(ax)
    shares = seeds.recurrence_shares
    bars = ax.bar(range(len(shares)), shares, 0.72, color=ONE_TO_ONE)
    texts = [f"{v:.0%}" for v in shares]
    if size := fitting_size(texts, 0.85 * room(ax) / len(shares), 6):
        ax.bar_label(bars, texts, fontsize=size, padding=1, color=INK)
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    ax.set(xlabel="other runs in which a latent is found", ylabel="share of latents")
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.margins(y=0.12)
    chance = seeds.shared_chance
    known = "" if np.isnan(chance).all() else f"; expected by chance: {_percent(np.nanmax(chance))} in any one run"
    put_caption(ax, f"found: one-to-one partner > {seeds.threshold:g}{known}")
    return ax


@in_paper_style
def rarefaction_curve(rarefaction: Any, ax: Axes | None = None) -> Axes:
    """Draw the number of distinct latents against the number of runs, observed (solid) and extrapolated (dashed)."""
    ax = axes_or_new(ax)
    n = rarefaction.n_runs
    k = np.arange(1, n + 1)
    ax.fill_between(k, rarefaction.low, rarefaction.high, color=NEAREST, alpha=0.2, linewidth=0)
    ax.plot(k, rarefaction.expected, color=NEAREST, marker="o" if n <= _MOST_NAMED else "", markersize=2.5)
    if len(rarefaction.further):
        further = np.arange(n, n + len(rarefaction.further) + 1)
        middle, low, high = (
            np.concatenate([[start], values])
            for start, values in (
                (rarefaction.expected[-1], rarefaction.further),
                (rarefaction.low[-1], rarefaction.further_low),
                (rarefaction.high[-1], rarefaction.further_high),
            )
        )
        ax.fill_between(further, low, high, color=NEAREST, alpha=0.1, linewidth=0)
        ax.plot(further, middle, color=NEAREST, linestyle="--")
    ax.set(xlabel="runs", ylabel="distinct latents", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    put_caption(ax, "95% intervals; dashed: extrapolated to more runs")
    return ax


@in_paper_style
def recurrence_figure(seeds: Any) -> Figure:
    """Return a figure with recurrence and rarefaction side by side."""
    figure = new_figure(height=2.5)
    left, right = figure.subplots(1, 2)
    recurrence_bars(seeds, ax=left)
    rarefaction_curve(seeds.rarefaction, ax=right)
    return figure


def _annotate(ax: Axes, matrix: np.ndarray, chance: np.ndarray, is_bound: bool, cell: float) -> None:
    """Write the value and its null expectation into each cell, unless the text would be too small."""
    small = 0.78
    values = [[f"{v:.2f}" for v in row] for row in matrix]
    chances = [[_bound(v) if is_bound else f"{v:.2f}" for v in row] for row in chance]
    rows = ((values, 8.0), (chances, 8 * small))
    longest = max(width_of(max(itertools.chain(*texts), key=len), size) for texts, size in rows)
    size = min(8.0, 8 * 0.88 * cell / longest, cell / 2.5)
    if size * small < 0.8 * SMALLEST:
        return
    for i, j in itertools.product(range(len(matrix)), repeat=2):
        if np.isnan(matrix[i, j]):
            continue
        known = not np.isnan(chance[i, j])
        how: Any = {"ha": "center", "va": "center", "color": "white" if matrix[i, j] > 0.38 else INK}
        ax.text(j + 0.5, i + (0.36 if known else 0.5), values[i][j], fontsize=size, **how)
        if known:
            ax.text(j + 0.5, i + 0.74, chances[i][j], fontsize=small * size, **how)


def _percent(share: float) -> str:
    """Format an upper bound as a percentage, rounded up."""
    if share < 0.001:
        return "<\u00a00.1%"
    digits = 1 if share < 0.1 else 0
    return f"≤\u00a0{np.ceil(share * 10 ** (digits + 2)) / 10**digits:.{digits}f}%"


def _bound(value: float) -> str:
    """Format an upper bound with two digits, rounded up."""
    return "< 0.01" if value < 0.01 else f"≤ {np.ceil(value * 100) / 100:.2f}"


def _ridges(seeds: Any) -> list[tuple[str, np.ndarray, float, bool]]:
    """Return (label, histogram, null expectation, same group) for each ordered pair of runs or, pooled, of groups."""
    names, groups = seeds.labels, seeds.groups
    ordered = sorted(itertools.permutations(range(len(names)), 2), key=lambda p: (groups[p[0]] != groups[p[1]], p))
    if len(ordered) <= _MOST_RIDGES:
        return [
            (_arrow(names[i], names[j]), _histogram(seeds, i, j), seeds.chance[i, j], groups[i] == groups[j])
            for i, j in ordered
        ]
    pooled: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for i, j in ordered:
        pooled.setdefault((groups[i], groups[j]), []).append((i, j))
    return [
        (
            f"{_arrow(a, b)} ({counted(len(pairs), 'pair')})",
            sum((_histogram(seeds, i, j) for i, j in pairs), start=np.zeros(N_BINS, dtype=np.int64)),
            float(np.mean([seeds.chance[i, j] for i, j in pairs])),
            a == b,
        )
        for (a, b), pairs in list(pooled.items())[:_MOST_RIDGES]
    ]


def _arrow(a: str, b: str) -> str:
    return f"{shortened(a, _NAME)} → {shortened(b, _NAME)}"


def _histogram(seeds: Any, i: int, j: int) -> np.ndarray:
    return np.asarray(seeds.pairs[min(i, j), max(i, j)].histogram[int(i > j)])


def _smooth(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 3) ** 2)
    return np.convolve(np.asarray(counts, dtype=float), kernel / kernel.sum(), mode="same")
