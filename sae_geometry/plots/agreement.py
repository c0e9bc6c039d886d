"""Figures of encoder agreement: encoder against decoder cosine, and similarity against firing frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sae_geometry.io.formatting import counted
from sae_geometry.plots.style import (
    COLUMN_WIDTH,
    INK,
    MUTED,
    NEAREST,
    ONE_TO_ONE,
    axes_or_new,
    in_paper_style,
    lower_end,
    new_figure,
)
from sae_geometry.plots.text import LABEL_SIZE, SMALLEST, fitting_size, put_legend, put_note, room, shortened

_CELLS = 34
_BAND = 0.085  # height of the bands for the counts above and below the points, as a share of the range of cosines


@in_paper_style
def agreement_figure(agreement: Any) -> Figure:
    """Return a figure of encoder against decoder cosine to the same partner: hexbin, marginals and group counts."""
    figure = new_figure(COLUMN_WIDTH * 1.25, COLUMN_WIDTH * 1.25)
    axes: Any = figure.subplots(2, 2, width_ratios=(5, 1), height_ratios=(1, 5))
    (top, empty), (main, right) = axes
    empty.set_axis_off()
    x, y = agreement.decoder_cosine, agreement.encoder_cosine
    left, low = lower_end(x), lower_end(y)
    cells = main.hexbin(
        x, y, gridsize=_CELLS, extent=(left, 1, low, 1), cmap=_counts(), norm=LogNorm(1), mincnt=1, linewidths=0.1,
        rasterized=True,
    )  # fmt: skip
    _color_bar(cells, right)
    dashed: Any = {"color": INK, "linewidth": 0.6, "linestyle": (0, (3, 2))}
    main.hlines(agreement.threshold, left, 1, **dashed)
    main.vlines(agreement.threshold, low, 1, **dashed)
    if not np.isnan(chance := agreement.decoder.a_to_b.chance):
        main.vlines(chance, low, 1, color=INK, linewidth=0.8, linestyle=(0, (1, 1.5)))
    band = _BAND * (1 - low)
    main.set(xlim=(left, 1.02), ylim=(low - band, 1 + band), xlabel="decoder cosine to the partner")
    main.set_ylabel("encoder cosine to the partner")
    main.set_yticks([tick for tick in main.get_yticks() if low <= tick <= 1])
    _corners(main, agreement)
    top.hist(np.clip(x, left, 1), bins=np.linspace(left, 1, 50).tolist(), color=NEAREST, alpha=0.7)
    right.hist(
        np.clip(y, low, 1), bins=np.linspace(low, 1, 50).tolist(), color=NEAREST, alpha=0.7, orientation="horizontal"
    )
    for ax, keep in ((top, "bottom"), (right, "left")):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.spines[keep].set_visible(True)
    top.set_xlim(main.get_xlim())
    right.set_ylim(main.get_ylim())
    names = " → ".join(shortened(d.name, 0.27 * room(figure), 8, "bold") for d in (agreement.a, agreement.b))
    top.set_title(f"{names}, {counted(len(x), 'latent')}", loc="left", fontsize=8, fontweight="bold")
    put_note(figure, f"dashed: threshold {agreement.threshold:g}; dotted: nearest decoder cosine expected by chance")
    return figure


@in_paper_style
def frequency_hexbin(agreement: Any, ax: Axes | None = None, *, legend: bool = True) -> Axes:
    """Draw decoder cosine to the nearest partner against log firing frequency, with the mean of each quintile.

    Raises:
        ValueError: the firing frequencies of A's latents are unknown.
    """
    if agreement.a.frequency is None:
        raise ValueError(
            f"the firing frequencies of {agreement.a.name!r} are unknown; load a checkpoint that includes them"
        )
    ax = axes_or_new(ax, COLUMN_WIDTH * 1.15, 3.0)
    frequency = agreement.a.frequency.cpu().numpy()
    fires = frequency > 0
    cells = ax.hexbin(
        frequency[fires], agreement.decoder_cosine[fires], gridsize=(_CELLS, 22), xscale="log", cmap=_counts(),
        norm=LogNorm(1), mincnt=1, linewidths=0.1, rasterized=True,
    )  # fmt: skip
    strata = agreement.by_frequency()
    middle = np.sqrt(strata["lowest_frequency"] * strata["highest_frequency"])
    error = np.stack([strata["mean_decoder_cosine"] - strata["low"], strata["high"] - strata["mean_decoder_cosine"]])
    ax.errorbar(
        middle, strata["mean_decoder_cosine"], yerr=error, color=ONE_TO_ONE, marker="o", markersize=3, linewidth=1.0,
        label="mean with 95% interval",
    )  # fmt: skip
    chance = agreement.decoder.a_to_b.chance
    if not np.isnan(chance):
        ax.axhline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (1, 1.5)), label="expected by chance")
    ax.set(xlabel="firing frequency", ylabel="decoder cosine to the nearest latent")
    _color_bar(cells, ax)
    put_legend(ax, loc="upper left", legend=legend)
    return ax


def _counts() -> Any:
    import seaborn as sns

    return sns.color_palette("crest", as_cmap=True)


def _color_bar(cells: Any, ax: Axes) -> None:
    bar = ax.figure.colorbar(cells, ax=ax, shrink=0.6, pad=0.03, aspect=18)
    bar.set_label("latents per cell", fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=LABEL_SIZE, length=2)
    bar.outline.set_visible(False)


def _corners(ax: Axes, agreement: Any) -> None:
    """Write each group's count in its corner of the axes, above or below the points."""
    places = {
        "both high": (0.99, 0.99, "right", "top"),
        "encoder only": (0.015, 0.99, "left", "top"),
        "decoder only": (0.99, 0.01, "right", "bottom"),
        "both low": (0.015, 0.01, "left", "bottom"),
    }
    texts = {name: f"{name}: {count:,}" for name, count in agreement.counts().items()}
    size = fitting_size(list(texts.values()), 0.45 * room(ax))
    for name, text in texts.items():
        x, y, ha, va = places[name]
        ax.text(x, y, text, transform=ax.transAxes, ha=ha, va=va, fontsize=size or SMALLEST, color=INK)
