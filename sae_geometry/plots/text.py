"""Lay out text in figures by its width in points (1/72 inch), as measured in the installed font."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import offset_copy

from sae_geometry.plots.style import INK, MUTED, literal

LABEL_SIZE = 6.5
_MARGIN = 4.0  # gap between the edge of a figure and its text
_SPARE = 1.03  # safety factor, since notebooks hint text differently
_HANDLE = 30.0  # width of a legend handle with its padding
_BELOW = 33.0  # height of ticks, tick labels and axis label
SMALLEST = 4.5  # smallest readable font size


def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a line of text in the fonts of the current style."""
    font = FontProperties(family=mpl.rcParams["font.family"], size=size, weight=weight)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # The box for a missing glyph is measured.
        return _SPARE * float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def room(place: Axes | Figure | SubFigure) -> float:
    """Return the width of a figure, or of axes before the layout is applied."""
    return float(place.bbox.width * 72 / place.figure.dpi)


def makes_room(ax: Axes) -> bool:
    """Return whether the figure of `ax` has a layout engine, which makes room for text outside the axes."""
    return ax.figure.get_layout_engine() is not None


def shortened(text: str, width: float, size: float = LABEL_SIZE, weight: str = "normal") -> str:
    """Return the text, escaped and, if too wide, cut in the middle, since names often differ at their ends."""
    if width_of(text, size, weight) <= width:
        return literal(text)
    fits, too_long = 1, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if width_of(_cut(text, middle), size, weight) <= width else (fits, middle)
    return literal(_cut(text, fits))


def wrapped(text: str, width: float, size: float = LABEL_SIZE, indent: str = "", weight: str = "normal") -> str:
    """Return the text, escaped and broken into lines that fit the width; a word longer than a line is cut."""
    lines: list[str] = []
    for word in text.split(" "):  # A bare split() would also break at no-break spaces.
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(f"{indent if lines else ''}{word}")
    return "\n".join(shortened(line, width, size, weight) for line in lines)


def fitting_size(texts: Sequence[str], width: float, most: float = LABEL_SIZE) -> float | None:
    """Return the largest font size up to `most` at which every text fits the width; None if that is unreadable."""
    widest = max((width_of(text, most) for text in texts), default=0.0)
    size = most if widest <= width else most * width / widest
    return size if size >= SMALLEST else None


def lettered(names: Mapping[str, str], width: float, size: float, weight: str = "normal") -> str:
    """Return "A: name    B: name", escaped and on one line if it fits, else with one line per letter."""
    line = "    ".join(f"{letter}: {name}" for letter, name in names.items())
    if width_of(line, size, weight) <= width:
        return literal(line)
    return "\n".join(shortened(f"{letter}: {name}", width, size, weight) for letter, name in names.items())


def put_title(figure: Figure | SubFigure, text: str) -> None:
    width = room(figure)
    text = wrapped(text, 0.96 * (width - 2 * _MARGIN), 8, weight="bold")
    figure.suptitle(text, x=_MARGIN / width, ha="left", fontsize=8, fontweight="bold")


def put_note(figure: Figure | SubFigure, text: str, color: str = MUTED) -> None:
    """Write a note under a figure, above any earlier note."""
    width = room(figure)
    above = wrapped(text, width - 3 * _MARGIN, 6)
    text = "\n".join(line for line in (above, figure.get_supxlabel()) if line)
    figure.supxlabel(text, x=_MARGIN / width, ha="left", fontsize=6, color=color)


def put_caption(ax: Axes, text: str, size: float = 7) -> None:
    """Write a caption above the axes if the figure makes room for it."""
    if makes_room(ax):
        ax.set_title(wrapped(text, room(ax), size), loc="left", fontsize=size)


def put_legend(
    ax: Axes,
    handles: Sequence[Any] | None = None,
    *,
    title: str = "",
    short: Sequence[str] | None = None,
    loc: Any = "best",
    legend: bool = True,
) -> None:
    """Write a legend under the axes if the figure makes room for it, else inside them.

    Args:
        handles: labeled artists or containers; the handles of the axes if None.
        title: title of a legend inside the axes, already escaped.
        short: labels of a legend inside the axes; the labels of the handles if None.
        legend: False omits the legend.
    """
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    if not legend or not handles:
        return
    # Matplotlib omits labels that begin with an underscore.
    labels, short = (
        [f" {x}" if x.startswith("_") else x for x in given]
        for given in ([str(h.get_label()) for h in handles], short or ())
    )
    how: dict[str, Any] = {"fontsize": LABEL_SIZE, "handlelength": 1.8}
    if makes_room(ax):
        labels = [wrapped(label, room(ax) - _HANDLE) for label in labels]
        below = offset_copy(ax.transAxes, fig=ax.figure.get_figure(root=True), y=-_BELOW, units="points")
        widest = max(width_of(line, LABEL_SIZE) for label in labels for line in label.split("\n"))
        # In units of the font size, each column has a handle (1.8) and a pad (0.8), and all but the last a gap (1.0).
        columns = max(1, int((room(ax) + LABEL_SIZE) / (widest + 3.6 * LABEL_SIZE)))
        how |= {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below, "borderpad": 0}
        ax.legend(handles, labels, ncols=columns, columnspacing=1.0, **how)
        return
    width = 0.6 * room(ax) - _HANDLE
    labels = [shortened(label, width) for label in short or labels]
    shown = ax.legend(handles, labels, loc=loc, title=title or None, title_fontsize=LABEL_SIZE, alignment="left", **how)
    shown.set(frame_on=True)
    shown.get_frame().set(facecolor="white", edgecolor="none", alpha=0.8)
    shown.get_title().set_color(INK)


def _cut(text: str, length: int) -> str:
    """Return at most `length` characters of text, with an ellipsis in place of the middle."""
    if len(text) <= length:
        return text
    end = 2 * (length - 1) // 5
    return f"{text[: length - 1 - end]}…{text[len(text) - end :]}"
