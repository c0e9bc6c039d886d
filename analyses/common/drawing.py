"""Figure layouts shared by the reproductions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sae_geometry as sg
from analyses.common.similarities import Similarities

MUTED = "#777777"
INK = "#222222"
LINES = "Dashed: mean. Dotted: expected by chance, against the turned target; faintly dotted: isotropic."
Column = tuple[str, Sequence[tuple[str, Similarities]]]


def columns_of_panels(columns: Sequence[Column], *, xlabel: str, note: str = "", suffix: str = "") -> Figure:
    """Draw one column of histograms per title, in the kinds' colors, all with the same bins and vertical axis.

    Args:
        columns: (title, [(kind, similarities), …]).
        xlabel: label of the horizontal axes.
        note: text below the figure.
        suffix: text after the kind in a panel's label.
    """
    curves = [curve for _, panels in columns for _, curve in panels]
    low = sg.plots.panel_range(curves)
    edges = np.linspace(low, 1.0, 51)
    top = 1.08 * max(float(sg.plots.panel_shares(c, edges).max()) for c in curves)
    with sg.plots.paper_style():
        n_rows = max(len(panels) for _, panels in columns)
        width = 3.4 if len(columns) == 1 else sg.plots.PAGE_WIDTH
        figure = Figure(figsize=(width, 0.95 + 0.95 * n_rows), layout="constrained")
        parts: Any = np.atleast_1d(np.asarray(figure.subfigures(1, len(columns), wspace=0.03), dtype=object))
        for part, (title, panels) in zip(parts, columns, strict=True):
            kinds = [kind for kind, _ in panels]
            colors = sg.plots.run_colors(kinds, kinds, "e2e")
            sg.plots.draw_panels(
                part, [c for _, c in panels], labels=[f"{k}{suffix}" for k in kinds], colors=[colors[k] for k in kinds],
                title=title, xlabel=xlabel, low=low, top=top,
            )  # fmt: skip
        footnote(figure, f"{LINES} {note}".strip())
    return figure


def footnote(figure: Figure, text: str) -> None:
    """Write a small gray note below a figure, wrapped to its width."""
    if text:
        width = int(figure.get_figwidth() * 22.5)
        figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=6, color=MUTED, x=0.01, ha="left")


def region_outlines(ax: Axes, embedding: sg.Embedding, most: int = 8) -> None:
    """Draw the outlines and letters of the largest regions, with solid lines if most latents are of one run."""
    ax.set_aspect("equal", adjustable="box")
    low, high = embedding.coords.min(axis=0), embedding.coords.max(axis=0)
    edge = 0.03 * (high - low)
    ax.set(xlim=(low[0] - edge[0], high[0] + edge[0]), ylim=(low[1] - edge[1], high[1] + 2 * edge[1]))
    for region in embedding.regions.regions[:most]:
        mostly = region.verdict.startswith("mostly")
        corners = np.array([*region.outline, region.outline[0]])
        ax.plot(corners[:, 0], corners[:, 1], color=INK, linewidth=0.8 if mostly else 0.5,
                linestyle="-" if mostly else (0, (2, 1.5)))  # fmt: skip
        ax.annotate(
            region.letter, corners[np.argmax(corners[:, 1])], (0, 2), textcoords="offset points", ha="center",
            fontsize=7.5, fontweight="bold", color=INK,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
