"""Every figure of every command, in any fonts: all ink inside, no text on another, nothing outside its axes."""

from __future__ import annotations

import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import axes_of, figures_of
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from sae_geometry.plots import style

FONTS = {"machine": style._RC["font.sans-serif"], "dejavu": ["DejaVu Sans"]}
LONG = [f"{'W' * 29}{k}{'M' * 29}{k}" for k in range(6)]
N = 24_576
DPI = 60
AXES, FIGURES = axes_of(LONG, N), figures_of(LONG, N)


@pytest.fixture(params=FONTS)
def fonts(request, monkeypatch):
    monkeypatch.setitem(style._RC, "font.sans-serif", FONTS[request.param])


def boxes_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is seen, with its place in pixels."""
    found = []
    for text in figure.findobj(Text):
        seen = text.get_visible() and text.get_text().strip()
        # Matplotlib holds ticks beyond the limits too, and does not draw them.
        if seen and text.stale_callback is not None:
            found.append(text)
    drawn = set(map(id, drawn_texts(figure)))
    return [(t.get_text(), t.get_window_extent()) for t in found if id(t) in drawn]


def drawn_texts(figure: Figure) -> list[Text]:
    """The texts that a drawing of the figure really draws."""
    seen: list[Text] = []
    original = Text.draw

    def draw(self: Text, *args: object, **kwargs: object) -> None:
        seen.append(self)
        original(self, *args, **kwargs)

    Text.draw = draw  # type: ignore[method-assign]
    try:
        figure.canvas.draw()
    finally:
        Text.draw = original  # type: ignore[method-assign]
    return seen


def overlaps(boxes: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    """Pairs of texts that lie on each other by more than half a pixel."""
    return [
        (one, other)
        for (one, x), (other, y) in itertools.combinations(boxes, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 0.5 and min(x.y1, y.y1) - max(x.y0, y.y0) > 0.5
    ]


def pixels_of(figure: Figure) -> np.ndarray:
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def edge_is_blank(pixels: np.ndarray) -> bool:
    return all((side == 255).all() for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


def outside(figure: Figure) -> list[str]:
    """Texts in data coordinates, and legends inside, that leave their axes."""
    wrong = []
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


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_in_any_fonts_with_long_names_and_many_latents(name, fonts):
    figure = FIGURES[name]()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure)
    with style.paper_style():
        boxes = boxes_of(figure)
    assert edge_is_blank(pixels_of(figure)), "ink in the outermost pixels"
    width, height = figure.bbox.size
    cut = [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    assert cut == []
    assert overlaps(boxes) == []
    assert outside(figure) == []


GROUPS = [list(AXES)[at : at + 4] for at in range(0, len(AXES), 4)]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_four_figures_stand_side_by_side_in_plain_axes(names, fonts):
    figure, grid = plt.subplots(2, 2, figsize=(7, 5.5), dpi=DPI)
    for name, ax in itertools.zip_longest(names, grid.ravel()):
        if name is None:
            ax.remove()
        else:
            assert AXES[name][1](ax) is ax
    with style.paper_style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        boxes = boxes_of(figure)
    assert overlaps(boxes) == []
    assert outside(figure) == []
    assert edge_is_blank(pixels_of(figure))
