"""The picture of a UMAP: points of every run, drawn in shuffled order so that no run covers another."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sae_geometry.plots.style import COLUMN_WIDTH, MUTED, axes_or_new, in_paper_style, plain, run_colors


@runtime_checkable
class HasMetadata(Protocol):
    """A dictionary, as far as its colour goes."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...


@runtime_checkable
class EvidenceLine(Protocol):
    """Whatever can say in one line how far to believe the picture."""

    def line(self) -> str: ...


@runtime_checkable
class EmbeddingLike(Protocol):
    """What the scatter needs of an `Embedding`."""

    @property
    def coords(self) -> np.ndarray: ...
    @property
    def owner(self) -> np.ndarray: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def evidence(self) -> EvidenceLine: ...
    @property
    def dictionaries(self) -> Sequence[HasMetadata]: ...


@in_paper_style
def embedding_scatter(
    embedding: EmbeddingLike, ax: Axes | None = None, style: str = "okabe-ito", evidence: bool = True
) -> Axes:
    """Scatter of an embedding coloured by run, in shuffled draw order, rasterised inside vector files.

    Args:
        embedding: an `Embedding`.
        ax: axes to draw on; a new figure if None.
        style: "okabe-ito", or "e2e" for the end-to-end paper's colours by kind.
        evidence: print the evidence line beneath.
    """
    ax = axes_or_new(ax, COLUMN_WIDTH, COLUMN_WIDTH + 0.3)
    kinds = [d.metadata.get("kind") for d in embedding.dictionaries]
    colors = run_colors(embedding.names, kinds, style)
    order = np.random.default_rng(0).permutation(len(embedding.owner))
    point_colors = np.array([colors[name] for name in embedding.names])[embedding.owner[order]]
    ax.scatter(
        embedding.coords[order, 0],
        embedding.coords[order, 1],
        c=point_colors,
        s=float(np.clip(14000 / len(order), 0.3, 14)),
        alpha=0.75,
        linewidths=0,
        rasterized=True,
    )
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.03)
    for spine in ax.spines.values():
        spine.set_visible(False)
    counts = np.bincount(embedding.owner, minlength=len(embedding.names))
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=colors[name], label=f"{plain(name)} ({count:,})")
        for name, count in zip(embedding.names, counts, strict=True)
    ]
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        labelcolor="linecolor",
        handletextpad=0.1,
        columnspacing=1.0,
        borderaxespad=0.2,
    )
    if evidence:
        p = embedding.params
        text = (
            f"UMAP, exact cosine neighbours (k = {p['n_neighbors']}), seed {p['seed']}, {p['backend']} "
            f"{p['backend_version']}; {embedding.evidence.line()}"
        )
        ax.set_xlabel("\n".join(textwrap.wrap(text, 70)), fontsize=5.5, color=MUTED, loc="left")
    return ax
