"""Scatter plots of an embedding: points by run, attribute or region; one panel per run; unmatched; projections.

Points are drawn in shuffled order, so that no run systematically covers another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.patheffects import AbstractPathEffect, withStroke

from sae_geometry.io.formatting import counted
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
    run_colors,
)
from sae_geometry.plots.text import (
    LABEL_SIZE,
    SMALLEST,
    fitting_size,
    makes_room,
    put_note,
    room,
    shortened,
    width_of,
    wrapped,
)

Color = Literal["owner", "max-cosine", "matched", "frequency", "region"]
COLORS: tuple[Color, ...] = get_args(Color)

_MOST_NAMED = 24  # maximum number of entries in a legend, and of panels
_REGIONS = tuple(color for color in RUNS if color not in ("#000000", "#F0E442"))
_PALE, _MATCHED, _UNMATCHED = "#D5D5D5", "#332288", "#DDAA33"
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.0, foreground="white")]


def check_colors(colors: Sequence[str], dictionaries: Sequence[Any]) -> None:
    """Raise ValueError if a coloring is unknown, or needs data that the dictionaries lack.

    Raises:
        ValueError: an unknown coloring, by partner for one run or more than 24, or by frequency if no run has it.
    """
    for color in colors:
        if color not in COLORS:
            raise ValueError(f"color must be one of {', '.join(COLORS)}; got {color!r}")
        if color in ("max-cosine", "matched") and len(dictionaries) < 2:
            raise ValueError(f"color {color} needs partners in other runs, but there is only one run")
        if color in ("max-cosine", "matched") and len(dictionaries) > MOST_RUNS:
            raise ValueError(f"color {color} allows at most {MOST_RUNS} runs; got {len(dictionaries)}")
        if color == "frequency" and all(d.frequency is None for d in dictionaries):
            raise ValueError("color frequency needs firing frequencies, but no run has any; choose another color")


@in_paper_style
def embedding_scatter(
    embedding: Any,
    ax: Axes | None = None,
    style: str = "okabe-ito",
    *,
    color: Color = "owner",
    threshold: float = THRESHOLD,
    legend: bool = True,
) -> Axes:
    """Draw a scatter plot of an embedding; the points are shuffled, and rasterized in vector files.

    The layout's parameters and quality are written under the axes if the figure makes room for them.

    Args:
        ax: axes to draw on; a new figure if None.
        style: "okabe-ito", or "e2e" for the end-to-end paper's colors by kind.
        color: "owner": the run; "max-cosine": cosine to the nearest latent of another run; "matched": whether there is
            a one-to-one partner with a cosine above `threshold` in the closest run; "frequency": firing
            frequency on a logarithmic scale, gray if unknown; "region": lettered regions, and outlines given by hand.
        threshold: cosine above which the color "matched" counts a one-to-one partner.
        legend: draw the legend, above the axes if the layout makes room for it, else inside them.
    """
    check_colors([color], embedding.dictionaries)
    ax = axes_or_new(ax, height=COLUMN_WIDTH + 0.4)
    _bare(ax)
    if color == "owner":
        colors = _run_colors(embedding, style)
        _points(ax, embedding.coords, _colors_of(embedding, colors), total=len(embedding.owner))
        _legend(ax, _run_counts(embedding, colors), legend)
    elif color == "region":
        _by_region(embedding, ax)
    elif color == "matched":
        _by_match(embedding, ax, threshold, legend)
    else:
        _by_value(embedding, ax, color, legend)
    p = embedding.params
    said = f"UMAP, exact cosine neighbors (k = {p['n_neighbors']}), seed {p['seed']}, {p['backend']}"
    _write_under(ax, [said, *embedding.evidence.lines()])
    return ax


@in_paper_style
def runs_figure(embedding: Any, style: str = "okabe-ito") -> Figure:
    """Return a figure with one panel per run, up to 24: the run's latents in color over all latents in gray."""
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
        count = f" ({mine.sum():,})"
        ax.set_title(shortened(name, room(ax) - width_of(count, 8), 8) + count, loc="left", color=INK)
        _bare(ax)
    for ax in figure.axes[len(names) :]:
        ax.set_visible(False)
    more = len(embedding.names) - len(names)
    if more:
        put_note(figure, f"{counted(more, 'more run')} shown only in gray")
    return figure


@in_paper_style
def unmatched_scatter(
    embedding: Any,
    ax: Axes | None = None,
    style: str = "okabe-ito",
    *,
    threshold: float = THRESHOLD,
    legend: bool = True,
) -> Axes:
    """Draw latents without a one-to-one partner above `threshold` in their closest run, over all others in gray.

    Raises:
        ValueError: the embedding has only one run, or more than 24.
    """
    check_colors(["matched"], embedding.dictionaries)
    ax = axes_or_new(ax, height=COLUMN_WIDTH + 0.2)
    alone = ~_matched(embedding, threshold)
    colors = _run_colors(embedding, style)
    _points(ax, embedding.coords[~alone], _PALE, total=len(alone))
    _points(ax, embedding.coords[alone], _colors_of(embedding, colors)[alone], total=len(alone))
    entries = [(_PALE, f"one-to-one partner > {threshold:g} ({(~alone).sum():,})")]
    for run, name in enumerate(embedding.names):
        mine = embedding.owner == run
        entries.append((colors[name], f"{name}: {(alone & mine).sum():,} of {mine.sum():,} unmatched"))
    _legend(ax, entries, legend)
    _bare(ax)
    return ax


@in_paper_style
def projection_figure(projection: Any, style: str = "okabe-ito") -> Figure:
    """Return a figure of projected runs in color over the fixed embedding in gray."""
    figure = new_figure(3.6, 4.1)
    ax = figure.subplots()
    old = projection.onto.table[["x", "y"]].to_numpy(dtype=np.float32)
    total = len(old) + len(projection.owner)
    colors = _run_colors(projection, style)
    _points(ax, old, _PALE, total=total)
    _points(ax, projection.coords, _colors_of(projection, colors), total=total)
    _legend(ax, [*_run_counts(projection, colors), (_PALE, f"the embedding ({len(old):,})")])
    _bare(ax)
    _write_under(ax, [f"projected into a fixed UMAP; {projection.line()}"])
    return figure


def _by_match(e: Any, ax: Axes, threshold: float, legend: bool) -> None:
    found = _matched(e, threshold)
    _points(ax, e.coords, np.where(found, _MATCHED, _UNMATCHED), total=len(found))
    partner = f"one-to-one partner above {threshold:g} ({found.sum():,})"
    _legend(ax, [(_MATCHED, partner), (_UNMATCHED, f"none ({(~found).sum():,})")], legend)


def _by_value(e: Any, ax: Axes, color: Color, legend: bool) -> None:
    from matplotlib.colors import LogNorm, Normalize

    values = e.to_pandas()[color.replace("-", "_")].to_numpy(dtype=np.float64, na_value=np.nan)
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
    silent = bool(color == "frequency" and (values[known] <= 0).any())
    label += ", left end: never fires" if silent else ""
    if not known.all():
        _points(ax, e.coords[~known], _PALE, total=len(values))
        _legend(ax, [(_PALE, f"unknown ({(~known).sum():,})")], legend)
    drawn = _points(ax, e.coords[known], shown[known], total=len(values), cmap="viridis", norm=norm)
    bar = ax.figure.colorbar(
        drawn, ax=ax, location="top", orientation="horizontal", fraction=0.045, pad=0.02, aspect=40,
        extend="min" if silent else "neither",
    )  # fmt: skip
    bar.set_label(label, fontsize=fitting_size([label], 0.98 * room(ax), 7.5) or SMALLEST)
    bar.ax.tick_params(labelsize=7, length=2, which="both")
    bar.outline.set_linewidth(0.4)
    if bar.solids is not None:
        bar.solids.set_alpha(1)


def _by_region(e: Any, ax: Axes) -> None:
    regions = e.regions.regions
    centers = np.array([r.center for r in regions], dtype=float).reshape(-1, 2)
    hues = [_REGIONS[hue] for hue in _apart_in_hue(centers)]
    colors = np.full(len(e.owner), _PALE, dtype=object)
    for region, hue in zip(regions, hues, strict=True):
        colors[region.members] = hue
        if e.regions.params.get("method") == "given":  # A cluster's convex hull would cover points of other clusters.
            outline = Polygon(region.outline, closed=True, fill=False, edgecolor=hue, linewidth=0.7, joinstyle="round")
            ax.add_patch(outline)
    _points(ax, e.coords, colors, total=len(e.owner))
    ax.autoscale_view()
    for at, region in enumerate(regions):  # The mean of a curved cluster may lie outside the cluster.
        if len(region.members):
            points = e.coords[region.members].astype(float)
            centers[at] = points[np.square(points - centers[at]).sum(axis=1).argmin()]
    _letters(ax, [r.letter for r in regions], centers)
    note = f"{counted(len(regions), 'region')}, {e.regions.how}; gray: outside ({1 - e.regions.share_inside:.0%})"
    words = "; ".join(f"{r.letter} {' '.join(m.token for m in r.marks[:3])}" for r in regions if r.marks)
    if makes_room(ax):
        lines = [wrapped(note, _wide(ax), 7), *([wrapped(f"tokens: {words}", _wide(ax), 7)] if words else [])]
        ax.set_title("\n".join(lines), loc="left", fontsize=7)


def _apart_in_hue(centers: np.ndarray) -> list[int]:
    """Return a color index per region: in turn, the color whose nearest earlier region is farthest away."""
    hues: list[int] = []
    for at, center in enumerate(centers):
        near = np.full(len(_REGIONS), np.inf)
        np.minimum.at(near, hues, np.hypot(*(centers[:at] - center).T))
        hues.append(int(near.argmax()))
    return hues


def _letters(ax: Axes, letters: Sequence[str], centers: np.ndarray) -> None:
    """Write each region's letter at its center; move letters that would touch apart, with a line to the center."""
    if not len(letters):
        return
    span = max(*np.ptp(np.array([ax.get_xlim(), ax.get_ylim()]), axis=1), 1e-9)
    # Both axes have the same scale, set by the shorter side; letters are taller than wide.
    points = min(ax.bbox.width, ax.bbox.height) * 72 / ax.figure.dpi
    size = max(width_of(letter, 8, "bold") for letter in letters)
    places = _apart(centers, 1.15 * span * max(size, 10.0) / points)
    for letter, place, center in zip(letters, places, centers, strict=True):
        if np.hypot(*(place - center)) > 0.02 * span:
            ax.plot(*zip(center, place, strict=True), color=INK, linewidth=0.4, zorder=4)
        x, y = map(float, place)
        how: Any = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold", "color": INK, "zorder": 5}
        ax.text(x, y, letter, path_effects=_HALO, **how)
    ax.update_datalim(places)
    ax.autoscale_view()


def _apart(points: np.ndarray, least: float) -> np.ndarray:
    """Return a copy of the points in which points closer than `least` are pushed apart."""
    out = points.astype(np.float64).copy()
    turn = np.arange(len(out)) * 2.399963  # Coincident points must move in different directions.
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


def _matched(e: Any, threshold: float) -> np.ndarray:
    cosine = e.to_pandas()["one_to_one_cosine"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.nan_to_num(cosine, nan=-1.0) > threshold


def _run_colors(e: Any, style: str) -> dict[str, str]:
    return run_colors(e.names, [d.metadata.get("kind") for d in e.dictionaries], style)


def _run_counts(e: Any, colors: Mapping[str, str]) -> list[tuple[str, str]]:
    counts = np.bincount(e.owner, minlength=len(e.names))
    return [(colors[n], f"{n} ({c:,})") for n, c in zip(e.names, counts, strict=True)]


def _colors_of(e: Any, colors: Mapping[str, str]) -> np.ndarray:
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
    ax.spines[:].set_visible(False)


def _wide(ax: Axes) -> float:
    """Return the width in points that a layout gives to axes without ticks."""
    place = ax.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    return room(ax.figure) / columns - 10


def _write_under(ax: Axes, lines: Sequence[str]) -> None:
    if makes_room(ax):
        text = "\n".join(wrapped(line, 0.95 * _wide(ax), 6, indent="    ") for line in lines)
        ax.set_xlabel(text, fontsize=6, color=MUTED, loc="left")


def _legend(ax: Axes, entries: Sequence[tuple[str, str]], legend: bool = True) -> None:
    if not legend:
        return
    if len(entries) > _MOST_NAMED:
        entries = [*entries[: _MOST_NAMED - 1], (_PALE, f"and {len(entries) - _MOST_NAMED + 1:,} more")]
    outside = makes_room(ax)
    size, marker = (7.5, 12.0) if outside else (LABEL_SIZE, 11.0)
    width = _wide(ax) - marker if outside else 0.6 * room(ax)
    longest = max(width_of(label, size) for _, label in entries) + marker + 8
    columns = 2 if outside and 2 * longest <= width else 1
    handles = [Line2D([], [], marker="o", linestyle="", markersize=4, color=c) for c, _ in entries]
    how: dict[str, Any] = {"fontsize": size, "handletextpad": 0.1, "columnspacing": 1.0, "borderaxespad": 0.2}
    how |= {"loc": "lower left", "bbox_to_anchor": (0, 1)} if outside else {"loc": "best"}
    shown = ax.legend(handles, [_kept(label, width, size) for _, label in entries], ncols=columns, **how)
    if not outside:
        shown.set(frame_on=True)
        shown.get_frame().set(facecolor="white", edgecolor="none", alpha=0.8)
    for text, (color, _) in zip(shown.get_texts(), entries, strict=True):
        text.set_color(MUTED if color == _PALE else INK)


def _kept(label: str, width: float, size: float) -> str:
    """Return the label with its name shortened to fit, but not the count in parentheses or the text after a colon."""
    at = max(label.rfind(" ("), label.rfind(": "))
    name, rest = (label, "") if at < 0 else (label[:at], label[at:])
    short = shortened(name, width - width_of(rest, size), size) + rest
    return f" {short}" if short.startswith("_") else short
