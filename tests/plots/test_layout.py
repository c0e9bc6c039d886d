"""Tests of every figure's layout in any fonts: no ink at the edges, no overlapping text, no text outside its axes."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import axes_of, curves, drift, embedding, figures_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from sae_geometry import plots
from sae_geometry.plots import style
from sae_geometry.plots.style import literal
from sae_geometry.plots.text import shortened, width_of

FONTS = {"machine": style._RC["font.sans-serif"], "dejavu": ["DejaVu Sans"]}
LONG = [f"{'W' * 29}{k}{'M' * 29}{k}" for k in range(6)]
N = 12_288
DPI = 60
AXES, FIGURES = axes_of(LONG, N), figures_of(LONG, N)
# Figures full of text are drawn in both sets of fonts, the others in the machine's own only by the slow tests.
FULLEST = {"similarity", "matrices", "runs", "agreement", "flow", "double counting", "drift"}


def texts_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Draw the figure and return every text with its place in pixels."""
    seen: list[Text] = []
    draw = Text.draw

    def noted(self: Text, renderer: Any) -> None:
        seen.append(self)
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patch, style.paper_style():
        patch.setattr(Text, "draw", noted)
        figure.canvas.draw()
    return [(t.get_text(), t.get_window_extent()) for t in seen if t.get_visible() and t.get_text().strip()]


def overlaps(boxes: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    """Return the pairs of texts that overlap by more than half a pixel."""
    return [
        (one, other)
        for (one, x), (other, y) in itertools.combinations(boxes, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 0.5 and min(x.y1, y.y1) - max(x.y0, y.y0) > 0.5
    ]


def edge_is_blank(pixels: np.ndarray) -> bool:
    return all((side == 255).all() for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


def outside(figure: Figure) -> list[str]:
    """Return texts in data coordinates, and legends inside, that leave their axes."""
    wrong: list[str] = []
    for ax in figure.axes:
        frame = ax.get_window_extent().padded(1)
        legend = ax.get_legend()
        held = [t for t in ax.texts if t.get_visible() and t.get_text().strip() and t.get_transform() == ax.transData]
        if legend is not None and figure.get_layout_engine() is None:
            held.append(legend)
        for artist in held:
            box = artist.get_window_extent()
            if not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1):
                wrong.append(getattr(artist, "get_text", lambda: "legend")())
    return wrong


def check(figure: Figure) -> None:
    boxes = texts_of(figure)
    assert edge_is_blank(np.asarray(figure.canvas.buffer_rgba())[..., :3]), "there is ink in the outermost pixels"
    width, height = figure.bbox.size
    assert [t for t, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height] == []
    assert overlaps(boxes) == []
    assert outside(figure) == []


@pytest.mark.parametrize(
    ("fonts", "name"),
    [("dejavu", name) for name in FIGURES]
    + [pytest.param("machine", name, marks=[] if name in FULLEST else pytest.mark.slow) for name in FIGURES],
)
def test_every_figure_is_legible_in_any_fonts_with_long_names_and_many_latents(fonts, name, monkeypatch):
    monkeypatch.setitem(style._RC, "font.sans-serif", FONTS[fonts])
    figure = FIGURES[name]()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure)
    check(figure)


def test_every_function_that_draws_is_here():
    source = Path(inspect.getfile(axes_of)).read_text(encoding="utf-8")
    draws = [n for n in plots.__all__ if callable(f := getattr(plots, n)) and returns(f) in ("Axes", "Figure")]
    assert len(draws) > 30
    assert [name for name in draws if f"plots.{name}(" not in source and name not in ("figure_of", "new_figure")] == []


def returns(function: Any) -> str:
    return str(inspect.signature(function).return_annotation).rpartition(".")[2].strip("'>")


GROUPS = [list(AXES)[at : at + 4] for at in range(0, len(AXES), 4)]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_four_figures_stand_side_by_side_in_plain_axes(names, monkeypatch):
    monkeypatch.setitem(style._RC, "font.sans-serif", FONTS["dejavu"])
    figure, grid = plt.subplots(2, 2, figsize=(7, 5.5), dpi=DPI)
    for name, ax in itertools.zip_longest(names, grid.ravel()):
        if name is None:
            ax.remove()
        else:
            assert AXES[name][1](ax) is ax
    check(figure)


@pytest.mark.parametrize("name", ["illicit illness", "WWWWWW", "a$b_c" * 9, "local-seed0, layer 24"])
def test_text_is_cut_only_where_it_does_not_fit(name):
    width = width_of(name, 8)
    assert shortened(name, width, 8) == literal(name)
    cut = shortened(name, 0.7 * width, 8)
    assert width_of(cut.replace(r"\$", "$"), 8) <= 0.7 * width
    assert cut[0] == name[0]
    assert "…" in cut


def test_a_legend_can_be_left_out():
    for draw in (
        lambda ax: plots.similarity_ecdf(curves("a", "b", 90), ax, legend=False),
        lambda ax: plots.multiplicity_bars(curves("a", "b", 90)[:2], ax, legend=False),
        lambda ax: plots.embedding_scatter(embedding("ab", 90), ax, legend=False),
        lambda ax: plots.drift_bands(drift("a", 90), ax, legend=False),
    ):
        assert draw(Figure().subplots()).get_legend() is None


def test_what_lies_wrong_is_found():
    figure = Figure(dpi=DPI)
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for place in (0.5, 0.51):
        ax.text(place, 0.5, "one on the other")
    assert overlaps([(t, b) for t, b in texts_of(figure) if "other" in t])
    ax.text(0.9, 0.9, "longer than what is left of the axes")
    assert outside(figure) == ["longer than what is left of the axes"]
    figure.text(0.95, 0.02, "over the edge")
    texts_of(figure)
    assert not edge_is_blank(np.asarray(figure.canvas.buffer_rgba())[..., :3])
