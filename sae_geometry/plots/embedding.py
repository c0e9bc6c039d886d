"""Figures of an embedding: by run, by attribute, by lettered region, one panel per run, and unmatched latents alone.

Points are drawn in shuffled order, so that no run systematically covers another."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator

from sae_geometry.matching.defaults import MOST_RUNS, THRESHOLD
from sae_geometry.plots.style import (
    COLUMN_WIDTH,
    INK,
    MUTED,
    PAGE_WIDTH,
    RUNS,
    axes_or_new,
    in_paper_style,
    new_figure,
    plain,
    run_colors,
)

if TYPE_CHECKING:
    import pandas as pd

Color = Literal["owner", "max-cosine", "matched", "frequency", "region"]
COLORS: tuple[Color, ...] = get_args(Color)

_MOST_NAMED = 24  # maximum number of runs in a legend, and of panels
_PALE, _MATCHED, _UNMATCHED = "#D5D5D5", "#332288", "#DDAA33"
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.0, foreground="white")]


@runtime_checkable
class HasMetadata(Protocol):
    """Attributes of a dictionary that the figures use."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def frequency(self) -> Any: ...


@runtime_checkable
class EvidenceLines(Protocol):
    """Evidence that can be printed in a few lines."""

    def lines(self) -> Sequence[str]: ...


@runtime_checkable
class EmbeddingLike(Protocol):
    """Attributes of an `Embedding` that the figures use."""

    @property
    def coords(self) -> np.ndarray: ...
    @property
    def owner(self) -> np.ndarray: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def evidence(self) -> EvidenceLines: ...
    @property
    def dictionaries(self) -> Sequence[HasMetadata]: ...
    @property
    def regions(self) -> Any: ...
    def to_pandas(self) -> pd.DataFrame: ...


def check_colors(colors: Sequence[str], dictionaries: Sequence[HasMetadata]) -> None:
    """Check that the dictionaries have values for a coloring, before any work is done.

    Raises:
        ValueError: an unknown coloring, coloring by partner for a single run, or by an unknown frequency.
    """
    for color in colors:
        if color not in COLORS:
            raise ValueError(f"color must be one of {', '.join(COLORS)}; got {color!r}")
        if color in ("max-cosine", "matched") and len(dictionaries) < 2:
            raise ValueError(f"color {color} compares a latent with the other runs, and there is one run only")
        if color in ("max-cosine", "matched") and len(dictionaries) > MOST_RUNS:
            raise ValueError(f"color {color} compares every two runs, and is made for up to {MOST_RUNS} of them")
        if color == "frequency" and all(d.frequency is None for d in dictionaries):
            raise ValueError("color frequency: none of the runs says how often its latents fire")


@in_paper_style
def embedding_scatter(
    embedding: EmbeddingLike,
    ax: Axes | None = None,
    style: str = "okabe-ito",
    *,
    color: Color = "owner",
    evidence: bool = True,
) -> Axes:
    """Draw a scatter of an embedding, in shuffled order, rasterized inside vector files.

    Args:
        embedding: an `Embedding`.
        ax: axes to draw on; a new figure if None.
        style: "okabe-ito", or "e2e" for the end-to-end paper's colors by kind.
        color: "owner": the run; "max-cosine": to the nearest latent of any other run; "matched": whether there is a
            one-to-one partner with a cosine above 0.7 in the closest run; "frequency": share of tokens, on a
            logarithmic scale, gray where unknown; "region": lettered regions with their outlines.
        evidence: print parameters and evidence under the figure.

    Raises:
        ValueError: see `check_colors`.
    """
    check_colors([color], embedding.dictionaries)
    ax = axes_or_new(ax, COLUMN_WIDTH, COLUMN_WIDTH + 0.4)
    if color == "owner":
        _by_run(embedding, ax, style)
    elif color == "region":
        _by_region(embedding, ax)
    elif color == "matched":
        _by_match(embedding, ax)
    else:
        _by_value(embedding, ax, color)
    if evidence:
        p = embedding.params
        said = [f"UMAP, exact cosine neighbours (k = {p['n_neighbors']}), seed {p['seed']}, {p['backend']}"]
        width = _width_in_letters(ax)
        rows = [
            row
            for line in [*said, *embedding.evidence.lines()]
            for row in textwrap.wrap(line, width, subsequent_indent="    ")
        ]
        ax.set_xlabel("\n".join(rows), fontsize=6, color=MUTED, loc="left")
    return ax


@in_paper_style
def runs_figure(embedding: EmbeddingLike, style: str = "okabe-ito") -> Figure:
    """Draw one panel per run: its latents in color over all latents in gray; of many runs, the first 24."""
    names = embedding.names[:_MOST_NAMED]
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    side = PAGE_WIDTH / max(columns, 3)
    figure = new_figure(side * columns, (side + 0.2) * rows)
    colors = _run_colors(embedding, style)
    for ax, (run, name) in zip(
        figure.subplots(rows, columns, squeeze=False).ravel(), enumerate(names), strict=False
    ):  # fmt: skip
        mine = embedding.owner == run
        _points(ax, embedding.coords, _PALE, total=len(mine))
        _points(ax, embedding.coords[mine], colors[name], total=len(mine))
        ax.set_title(f"{plain(name)} ({mine.sum():,})", loc="left", color=INK)
        _bare(ax)
    for ax in figure.axes[len(names) :]:
        ax.set_visible(False)
    more = len(embedding.names) - len(names)
    if more:
        figure.supxlabel(f"and {more:,} runs more, in grey here", fontsize=6.5, color=MUTED, x=0.01, ha="left")
    return figure


@in_paper_style
def unmatched_scatter(
    embedding: EmbeddingLike, ax: Axes | None = None, style: str = "okabe-ito", *, threshold: float = THRESHOLD
) -> Axes:
    """Draw latents without a one-to-one partner above `threshold` in their closest run, over the rest in gray.

    Raises:
        ValueError: one run alone.
    """
    check_colors(["matched"], embedding.dictionaries)
    ax = axes_or_new(ax, COLUMN_WIDTH, COLUMN_WIDTH + 0.2)
    alone = ~_matched(embedding, threshold)
    colors = _run_colors(embedding, style)
    _points(ax, embedding.coords[~alone], _PALE, total=len(alone))
    _points(ax, embedding.coords[alone], _colors_of(embedding, colors)[alone], total=len(alone))
    entries = [(_PALE, f"matched ({(~alone).sum():,})")]
    for run, name in enumerate(embedding.names):
        mine = embedding.owner == run
        entries.append((colors[name], f"{plain(name)}: {(alone & mine).sum():,} of {mine.sum():,} unmatched"))
    _legend(ax, entries, columns=1)
    _bare(ax)
    return ax


@runtime_checkable
class ProjectionLike(Protocol):
    """Attributes of a `Projection` that the figure uses."""

    @property
    def coords(self) -> np.ndarray: ...
    @property
    def owner(self) -> np.ndarray: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def onto(self) -> Any: ...
    @property
    def dictionaries(self) -> Sequence[HasMetadata]: ...
    def line(self) -> str: ...


@in_paper_style
def projection_figure(projection: ProjectionLike, style: str = "okabe-ito") -> Figure:
    """Draw projected runs in color over the fixed embedding in gray."""
    figure = new_figure(3.6, 4.1)
    ax = figure.subplots()
    old = projection.onto.table[["x", "y"]].to_numpy(dtype=np.float32)
    total = len(old) + len(projection.owner)
    colors = run_colors(projection.names, [d.metadata.get("kind") for d in projection.dictionaries], style)
    _points(ax, old, _PALE, total=total)
    mine = np.array([colors[name] for name in projection.names])[projection.owner]
    _points(ax, projection.coords, mine, total=total)
    counts = np.bincount(projection.owner, minlength=len(projection.names))
    new = [(colors[n], f"{plain(n)} ({c:,})") for n, c in zip(projection.names, counts, strict=True)]
    _legend(ax, [*new, (_PALE, f"the picture ({len(old):,})")])
    _bare(ax)
    said = "\n".join(textwrap.wrap(f"placed into a finished UMAP; {projection.line()}", 80))
    ax.set_xlabel(said, fontsize=6, color=MUTED, loc="left")
    return figure


def _by_run(e: EmbeddingLike, ax: Axes, style: str) -> None:
    colors = _run_colors(e, style)
    _points(ax, e.coords, _colors_of(e, colors), total=len(e.owner))
    counts = np.bincount(e.owner, minlength=len(e.names))
    _legend(ax, [(colors[n], f"{plain(n)} ({c:,})") for n, c in zip(e.names, counts, strict=True)])
    _bare(ax)


def _by_match(e: EmbeddingLike, ax: Axes) -> None:
    found = _matched(e, THRESHOLD)
    _points(ax, e.coords, np.where(found, _MATCHED, _UNMATCHED), total=len(found))
    _legend(
        ax,
        [
            (_MATCHED, f"one-to-one partner above {THRESHOLD:g} ({found.sum():,})"),
            (_UNMATCHED, f"none ({(~found).sum():,})"),
        ],
    )
    _bare(ax)


def _by_value(e: EmbeddingLike, ax: Axes, color: Color) -> None:
    from matplotlib.colors import LogNorm, Normalize

    column = {"max-cosine": "max_cosine", "frequency": "frequency"}[color]
    values = e.to_pandas()[column].to_numpy(dtype=np.float64, na_value=np.nan)
    known = ~np.isnan(values)
    norm: Normalize
    if color == "frequency":
        positive = values[known & (values > 0)]
        low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1.0)
        norm, label = LogNorm(low, max(high, low * 1.01)), "firing frequency (share of tokens)"
        shown = np.maximum(values, low)
    else:
        low = min(0.0, float(values[known].min()))
        norm, label, shown = Normalize(low, 1.0), "cosine to the nearest latent of another run", values
    if not known.all():
        _points(ax, e.coords[~known], _PALE, total=len(values))
        _legend(ax, [(_PALE, f"unknown ({(~known).sum():,})")])
    drawn = _points(ax, e.coords[known], shown[known], total=len(values), cmap="viridis", norm=norm)
    silent = bool(color == "frequency" and (values[known] <= 0).any())
    bar = ax.figure.colorbar(
        drawn, ax=ax, location="top", orientation="horizontal", fraction=0.045, pad=0.02, aspect=40,
        extend="min" if silent else "neither",
    )  # fmt: skip
    bar.set_label(label + (", left end: never" if silent else ""), fontsize=7.5)
    bar.ax.tick_params(labelsize=7, length=2, which="both")
    bar.outline.set_linewidth(0.4)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    _bare(ax)


def _by_region(e: EmbeddingLike, ax: Axes) -> None:
    regions = e.regions.regions
    colors = np.full(len(e.owner), _PALE, dtype=object)
    for i, region in enumerate(regions):
        colors[region.members] = RUNS[i % 4]
    _points(ax, e.coords, colors, total=len(e.owner))
    for i, region in enumerate(regions):
        ax.add_patch(
            Polygon(region.outline, closed=True, fill=False, edgecolor=RUNS[i % 4], linewidth=0.7, joinstyle="round")
        )
    ax.autoscale_view()
    _bare(ax)
    ax.tick_params(labelsize=5.5, length=2, width=0.4, colors=MUTED)  # the coordinates of boxes in a regions file
    ax.xaxis.set_major_locator(MaxNLocator(8))
    ax.yaxis.set_major_locator(MaxNLocator(8))
    _letters(ax, [r.letter for r in regions], np.array([r.center for r in regions]).reshape(-1, 2))
    note = f"{len(regions)} regions, {e.regions.how}; grey: in none ({1 - e.regions.share_inside:.0%})"
    words = "; ".join(f"{r.letter} {' '.join(plain(m.token) for m in r.marks[:3])}" for r in regions if r.marks)
    lines = [*textwrap.wrap(note, 58), *textwrap.wrap(f"tokens: {words}" if words else "", 58)]
    ax.set_title("\n".join(lines), loc="left", fontsize=7)


def _letters(ax: Axes, letters: Sequence[str], centers: np.ndarray) -> None:
    """Write letters at region centers, moved apart where two would touch, with a line to the center."""
    if not len(letters):
        return
    span = max(*np.ptp(np.array([ax.get_xlim(), ax.get_ylim()]), axis=1), 1e-9)
    places = _apart(centers, 0.045 * span)
    for letter, place, center in zip(letters, places, centers, strict=True):
        if np.hypot(*(place - center)) > 0.02 * span:
            ax.plot(*zip(center, place, strict=True), color=INK, linewidth=0.4, zorder=4)
        text = ax.text(
            float(place[0]),
            float(place[1]),
            letter,
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            color=INK,
            zorder=5,
        )
        text.set_path_effects(_HALO)


def _apart(points: np.ndarray, least: float) -> np.ndarray:
    """Push points apart that are closer than `least`, moving the others as little as possible."""
    out = points.astype(np.float64).copy()
    turn = np.arange(len(out)) * 2.399963  # coincident points move in different directions
    out += 1e-6 * least * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for _ in range(200):
        away = out[:, None] - out[None]
        distance = np.hypot(away[..., 0], away[..., 1])
        np.fill_diagonal(distance, 2 * least)
        close = distance < least
        if not close.any():
            break
        push = np.where(close, (least * 1.02 - distance) / np.maximum(distance, 1e-12) / 2, 0.0)
        out += (away * push[..., None]).sum(axis=1)
    return out


def _matched(e: EmbeddingLike, threshold: float) -> np.ndarray:
    cosine = e.to_pandas()["one_to_one_cosine"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.nan_to_num(cosine, nan=-1.0) > threshold


def _run_colors(e: EmbeddingLike, style: str) -> dict[str, str]:
    return run_colors(e.names, [d.metadata.get("kind") for d in e.dictionaries], style)


def _colors_of(e: EmbeddingLike, colors: Mapping[str, str]) -> np.ndarray:
    return np.array([colors[name] for name in e.names])[e.owner]


def _points(ax: Axes, coords: np.ndarray, colors: Any, *, total: int, **how: Any) -> Any:
    """Draw points in shuffled order, sized for an embedding of `total` points."""
    order = np.random.default_rng(0).permutation(len(coords))
    c = colors if isinstance(colors, str) else colors[order]
    return ax.scatter(
        coords[order, 0],
        coords[order, 1],
        c=c,
        s=float(np.clip(14000 / max(total, 1), 0.3, 14)),
        alpha=0.75,
        linewidths=0,
        rasterized=True,
        **how,
    )


def _bare(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.03)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _width_in_letters(ax: Axes) -> int:
    """Return the number of characters of the smallest size that fit under these axes."""
    place = ax.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    return int(19 * ax.figure.bbox.width / ax.figure.dpi / columns)


def _legend(ax: Axes, entries: Sequence[tuple[str, str]], columns: int = 2) -> None:
    if len(entries) > _MOST_NAMED:
        entries = [*entries[: _MOST_NAMED - 1], (_PALE, f"and {len(entries) - _MOST_NAMED + 1:,} more")]
    handles = [Line2D([], [], marker="o", linestyle="", markersize=4, color=c, label=label) for c, label in entries]
    longest = max(len(label) for _, label in entries)
    legend = ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns if longest <= 30 else 1,
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.2,
    )
    for text, (color, _) in zip(legend.get_texts(), entries, strict=True):
        text.set_color(MUTED if color == _PALE else INK)
