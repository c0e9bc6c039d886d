"""Shared style of all figures: 8 pt text, column widths, Okabe–Ito colors, and PDFs with editable text."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

P = ParamSpec("P")
R = TypeVar("R")

COLUMN_WIDTH = 3.25
PAGE_WIDTH = 6.75

INK = "#222222"
MUTED = "#777777"
WARNING = "#B00020"
# Two Okabe–Ito colors represent matchings; runs use them last, so that a color rarely means both.
NEAREST, ONE_TO_ONE = "#0072B2", "#D55E00"
RUNS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#000000", "#F0E442", NEAREST, ONE_TO_ONE)
E2E_KINDS = {"local": "#f0a70a", "e2e": "#518c31", "e2e+ds": "#6b6ecf"}

_RC: dict[Any, Any] = {
    "font.size": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "text.hinting": "no_hinting",  # At low resolution, hinted text is wider than measured.
    "savefig.dpi": 300,
    "figure.dpi": 120,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the package's matplotlib settings inside a `with` block.

    Only the settings changed here are restored: a notebook's backend turns on interactive mode at the first figure, and
    without that mode no later figure is shown. Only installed fonts are named, so that redrawn text looks the same.
    """
    before = {key: mpl.rcParams[key] for key in _RC}
    known = {font.name for font in fontManager.ttflist}
    families = [family for family in _RC["font.sans-serif"] if family in known]
    mpl.rcParams.update({**_RC, "font.family": families or ["sans-serif"]})
    try:
        yield
    finally:
        mpl.rcParams.update(before)


def in_paper_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a drawing function to run inside `paper_style`."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with paper_style():
            return draw(*args, **kwargs)

    return wrapped


def axes_or_new(ax: Axes | None, width: float = COLUMN_WIDTH, height: float = 2.4) -> Axes:
    """Return `ax`, or the axes of a new pyplot figure of this size in inches.

    If the figure has no layout engine, the gaps between axes are fixed, so the labels of `ax` are made smaller.
    """
    if ax is not None:
        if ax.figure.get_layout_engine() is None:
            ax.tick_params(labelsize=6.5, length=2, pad=2)
            for axis in (ax.xaxis, ax.yaxis):
                axis.labelpad = 1
                axis.label.set_fontsize(7)
        return ax
    import matplotlib.pyplot as plt

    _, new = plt.subplots(figsize=(width, height), layout="constrained")
    return new


def new_figure(width: float = PAGE_WIDTH, height: float = 2.5) -> Figure:
    """Return a figure that pyplot does not manage, so that it need not be closed."""
    return Figure(figsize=(width, height), layout="constrained")


def figure_of(draw: Callable[[Axes], object], width: float, height: float) -> Figure:
    """Return a figure in `paper_style` with one set of axes, filled by `draw`; width and height are in inches."""
    with paper_style():
        figure = new_figure(width, height)
        draw(figure.subplots())
    return figure


def lower_end(similarity: np.ndarray) -> float:
    """Return the start of a similarity axis: 0, or a negative minimum rounded down to a multiple of 0.05."""
    return float(np.floor(similarity[np.isfinite(similarity)].min(initial=0.0) * 20) / 20)


def literal(text: str) -> str:
    """Return the text with dollar signs escaped, so that Matplotlib does not parse it as mathematics."""
    return re.sub(r"(?<!\\)\$", r"\$", text)


def run_colors(names: Sequence[str], kinds: Sequence[str | None], style: str) -> dict[str, str]:
    """Return a color per run: Okabe–Ito in order or, for style="e2e", the end-to-end paper's color of its kind.

    Raises:
        ValueError: an unknown style.
    """
    if style not in ("okabe-ito", "e2e"):
        raise ValueError(f"style must be 'okabe-ito' or 'e2e'; got {style!r}")
    colors = {name: RUNS[i % len(RUNS)] for i, name in enumerate(names)}
    if style == "okabe-ito":
        return colors
    used: dict[str, int] = {}
    for name, kind in zip(names, kinds, strict=True):
        if kind in E2E_KINDS:
            used[kind] = used.get(kind, 0) + 1
            colors[name] = lighter(E2E_KINDS[kind], 0.45 * (used[kind] - 1))
    return colors


def save_figure(
    figure: Figure, stem: Path, metadata: Mapping[str, Any], formats: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Write `stem.png`, `stem.pdf`, … with `metadata` stored in each file, and return the paths.

    Raises:
        ValueError: a format other than png, pdf or svg.
    """
    text = json.dumps(dict(metadata), ensure_ascii=True, default=str)
    keys: dict[str, Mapping[str, Any]] = {
        "png": {"Description": text},
        "pdf": {"Subject": text, "CreationDate": None},
        "svg": {"Description": text, "Date": None},
    }
    if isinstance(formats, str) or not set(formats) <= set(keys):
        raise ValueError(f"formats must be a list of png, pdf or svg; got {formats!r}")
    paths = []
    with paper_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # The font may lack a character.
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)  # Lay out once for all formats, without drawing.
        figure.set_layout_engine("none")
        for kind in formats:
            path = stem.with_name(f"{stem.name}.{kind}")
            _print(figure, path, kind, keys[kind])
            paths.append(path)
    return paths


def _print(figure: Figure, path: Path, kind: str, metadata: Mapping[str, Any]) -> None:
    """Write one file; `figure.savefig` would draw everything twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas, dpi = figure.canvas, figure.dpi
    canvases = {"png": FigureCanvasAgg, "pdf": FigureCanvasPdf, "svg": FigureCanvasSVG}
    try:
        figure.dpi = 300
        drawn = canvases[kind](figure)
        getattr(drawn, f"print_{kind}")(path, metadata=metadata)
    finally:
        figure.dpi = dpi
        figure.set_canvas(canvas)


def lighter(color: str, share: float) -> str:
    """Return the color mixed with `share` of white, at most 80%."""
    from matplotlib.colors import to_hex, to_rgb

    share = min(share, 0.8)
    red, green, blue = (c + (1 - c) * share for c in to_rgb(color))
    return to_hex((red, green, blue))
