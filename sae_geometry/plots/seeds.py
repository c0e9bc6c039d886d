"""Figures of many runs: pairwise matrices, ridgelines, recurrence and rarefaction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sae_geometry.pairwise.checkpoint import N_BINS
from sae_geometry.plots.style import (
    COLUMN_WIDTH,
    INK,
    MUTED,
    NEAREST,
    ONE_TO_ONE,
    PAGE_WIDTH,
    axes_or_new,
    in_paper_style,
    new_figure,
    plain,
)

_MOST_ANNOTATED = 12
_MOST_NAMED = 30
_MOST_RIDGES = 24
_LABEL_SIZE = 6.5


@runtime_checkable
class SeedsLike(Protocol):
    """Attributes of a `SeedComparison` that the figures use."""

    @property
    def names(self) -> list[str]: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def groups(self) -> list[str]: ...
    @property
    def mmcs(self) -> np.ndarray: ...
    @property
    def chance(self) -> np.ndarray: ...
    @property
    def shared(self) -> np.ndarray: ...
    @property
    def shared_chance(self) -> np.ndarray: ...
    @property
    def paired(self) -> np.ndarray: ...
    @property
    def paired_chance(self) -> np.ndarray: ...
    @property
    def paired_name(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    @property
    def recurrence_shares(self) -> np.ndarray: ...
    @property
    def rarefaction(self) -> Any: ...
    @property
    def pairs(self) -> Any: ...


@in_paper_style
def seeds_heatmap(seeds: SeedsLike, what: str = "mmcs", ax: Axes | None = None) -> Axes:
    """Draw a matrix of pairs: source in rows, groups in blocks, the null expectation in small print under each value.

    Args:
        seeds: the comparison.
        what: "mmcs", "paired" or "shared".
        ax: axes to draw on; a new figure if None.

    Raises:
        ValueError: an unknown matrix.
    """
    titles = {
        "mmcs": "MMCS (nearest)",
        "paired": f"{seeds.paired_name} (one-to-one)",
        "shared": f"share one-to-one > {seeds.threshold:g}",
    }
    if what not in titles:
        raise ValueError(f"a heatmap shows one of {', '.join(titles)}; got {what!r}")
    order = np.argsort([list(dict.fromkeys(seeds.groups)).index(k) for k in seeds.groups], kind="stable")
    matrix = getattr(seeds, what)[np.ix_(order, order)]
    n = len(order)
    ax = axes_or_new(ax, COLUMN_WIDTH, COLUMN_WIDTH * 0.95)
    sns.heatmap(
        matrix, vmin=0, vmax=1, cmap="crest", cbar=False, square=True, linewidths=0.4 if n <= _MOST_NAMED else 0,
        linecolor="white", ax=ax, xticklabels=False, yticklabels=False, rasterized=n > _MOST_NAMED,
    )  # fmt: skip
    if n <= _MOST_ANNOTATED:
        chance = {"mmcs": seeds.chance, "paired": seeds.paired_chance, "shared": seeds.shared_chance}[what]
        _annotate(ax, matrix, chance[np.ix_(order, order)], "≤ " if what == "shared" else "")
    for at in range(1, n):
        if seeds.groups[order[at]] != seeds.groups[order[at - 1]]:
            ax.axhline(at, color=INK, linewidth=1.0)
            ax.axvline(at, color=INK, linewidth=1.0)
    ticks = np.arange(n) + 0.5
    if n <= _MOST_NAMED:
        ax.set_yticks(ticks, [plain(seeds.labels[k]) for k in order], rotation=0, fontsize=_LABEL_SIZE)
        ax.set_xticks(ticks, [plain(seeds.labels[k]) for k in order], rotation=90, fontsize=_LABEL_SIZE)
    ax.tick_params(length=0)
    ax.set_title(titles[what], loc="left", fontsize=8)
    return ax


@in_paper_style
def seeds_figure(seeds: SeedsLike) -> Figure:
    """Draw three matrices: nearest, one-to-one, shared; with a color bar where values are not written in."""
    figure = new_figure(PAGE_WIDTH, 3.1)
    axes: Any = figure.subplots(1, 3)
    for ax, what in zip(axes, ("mmcs", "paired", "shared"), strict=True):
        seeds_heatmap(seeds, what, ax=ax)
    for ax in axes[1:]:
        ax.set_yticks([])
    note = "row: source; column: target"
    if len(seeds.names) <= _MOST_ANNOTATED:
        note += "; small: chance, the same against the other run turned"
    else:
        bar = figure.colorbar(axes[-1].collections[0], ax=list(axes), shrink=0.6, pad=0.01)
        bar.ax.tick_params(labelsize=_LABEL_SIZE)
    figure.supxlabel(note, fontsize=6.5, color=MUTED, x=0.01, ha="left")
    return figure


@in_paper_style
def ridgeline_figure(seeds: SeedsLike) -> Figure:
    """Draw one ridge of nearest similarity per ordered pair, or per pair of groups where there are many."""
    ridges = _ridges(seeds)
    figure = new_figure(COLUMN_WIDTH * 1.5, 0.9 + 0.27 * len(ridges))
    ax = figure.subplots()
    for at, (label, counts, chance, same) in enumerate(ridges):
        density = _smooth(counts)
        base = len(ridges) - 1 - at
        x = np.linspace(-1, 1, len(density) + 1)
        centre = (x[1:] + x[:-1]) / 2
        color = NEAREST if same else ONE_TO_ONE
        height = 1.6 * density / density.max()
        ax.fill_between(centre, base, base + height, color=color, alpha=0.45, linewidth=0, zorder=at)
        ax.plot(centre, base + height, color=color, linewidth=0.8, zorder=at)
        ax.plot([chance, chance], [base, base + 0.85], color=INK, linewidth=0.8, linestyle=(0, (1, 1)), zorder=at + 0.5)
        ax.text(-0.02, base + 0.08, label, ha="right", va="bottom", fontsize=_LABEL_SIZE, transform=_left(ax))
    low = min((float(np.flatnonzero(c)[0]) / len(c) * 2 - 1 for _, c, _, _ in ridges), default=0.0)
    ax.set(
        xlim=(min(0.0, low), 1.0), ylim=(-0.05, len(ridges) + 0.8), xlabel="similarity to the nearest latent", yticks=[]
    )
    ax.spines["left"].set_visible(False)
    handles = [
        Patch(color=NEAREST, alpha=0.45, label="same group"),
        Patch(color=ONE_TO_ONE, alpha=0.45, label="different groups"),
        Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (1, 1)), label="chance"),
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=_LABEL_SIZE)
    return figure


@in_paper_style
def recurrence_bars(seeds: SeedsLike, ax: Axes | None = None) -> Axes:
    """Draw the share of latents found in exactly 0, 1, … N−1 other runs."""
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.4)
    shares = seeds.recurrence_shares
    bars = ax.bar(range(len(shares)), shares, 0.72, color=ONE_TO_ONE)
    if len(shares) <= _MOST_ANNOTATED:
        ax.bar_label(bars, [f"{v:.0%}" for v in shares], fontsize=6, padding=1, color=INK)
        ax.set_xticks(range(len(shares)))
    ax.set(xlabel="other runs in which a latent is found", ylabel="share of latents")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.margins(y=0.12)
    chance = seeds.shared_chance
    known = "" if np.isnan(chance).all() else f"; by chance ≤ {_percent(np.nanmax(chance))} in any one run"
    ax.set_title(f"found: one-to-one partner > {seeds.threshold:g}{known}", loc="left", fontsize=7)
    return ax


@in_paper_style
def rarefaction_curve(rarefaction: Any, ax: Axes | None = None) -> Axes:
    """Draw the number of distinct latents against the number of runs, observed (line) and extrapolated (dashed)."""
    ax = axes_or_new(ax, COLUMN_WIDTH, 2.4)
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
    ax.set_title("95 % intervals; dashed: more runs like these", loc="left", fontsize=7)
    return ax


@in_paper_style
def recurrence_figure(seeds: SeedsLike) -> Figure:
    """Draw recurrence and rarefaction side by side."""
    figure = new_figure(PAGE_WIDTH, 2.5)
    left, right = figure.subplots(1, 2)
    recurrence_bars(seeds, ax=left)
    rarefaction_curve(seeds.rarefaction, ax=right)
    return figure


def _annotate(ax: Axes, matrix: np.ndarray, chance: np.ndarray, mark: str) -> None:
    n = len(matrix)
    size = 8 - 0.25 * n
    for i, j in itertools.product(range(n), repeat=2):
        if np.isnan(matrix[i, j]):
            continue
        dark = matrix[i, j] > 0.38
        known = not np.isnan(chance[i, j])
        ax.text(
            j + 0.5, i + (0.42 if known else 0.5), f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=size,
            color="white" if dark else INK,
        )  # fmt: skip
        if known:
            ax.text(
                j + 0.5, i + 0.76, f"{mark}{_rounded(chance[i, j], bool(mark))}", ha="center", va="center",
                fontsize=size * 0.78, color="white" if dark else INK,
            )  # fmt: skip


def _percent(share: float) -> str:
    """Format a bound as a percentage, rounded up."""
    digits = 2 if share < 0.001 else 1 if share < 0.1 else 0
    return f"{np.ceil(share * 10 ** (digits + 2)) / 10**digits:.{digits}f} %"


def _rounded(value: float, bound: bool) -> str:
    """Format with two digits; round a bound up."""
    return f"{np.ceil(value * 100) / 100 if bound else value:.2f}"


def _ridges(seeds: SeedsLike) -> list[tuple[str, np.ndarray, float, bool]]:
    """Return (label, histogram, expectation, same kind) per ordered pair, or pooled per ordered pair of groups."""
    names, groups = seeds.labels, seeds.groups
    ordered = sorted(itertools.permutations(range(len(names)), 2), key=lambda p: (groups[p[0]] != groups[p[1]], p))
    if len(ordered) <= _MOST_RIDGES:
        return [
            (
                f"{plain(names[i])} → {plain(names[j])}",
                _histogram(seeds, i, j),
                seeds.chance[i, j],
                groups[i] == groups[j],
            )
            for i, j in ordered
        ]
    pooled: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for i, j in ordered:
        pooled.setdefault((groups[i], groups[j]), []).append((i, j))
    return [
        (
            f"{plain(a)} → {plain(b)} ({len(pairs):,} pairs)",
            sum((_histogram(seeds, i, j) for i, j in pairs), start=np.zeros(N_BINS, dtype=np.int64)),
            float(np.mean([seeds.chance[i, j] for i, j in pairs])),
            a == b,
        )
        for (a, b), pairs in list(pooled.items())[:_MOST_RIDGES]
    ]


def _histogram(seeds: SeedsLike, i: int, j: int) -> np.ndarray:
    return np.asarray(seeds.pairs[min(i, j), max(i, j)].histogram[int(i > j)])


def _smooth(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 3) ** 2)
    return np.convolve(np.asarray(counts, dtype=float), kernel / kernel.sum(), mode="same")


def _left(ax: Axes) -> Any:
    return ax.get_yaxis_transform()
