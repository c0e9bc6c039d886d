"""The picture of a UMAP: points of every run, drawn in shuffled order so that no run covers another."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes

from sae_geometry.plots.style import COLUMN_WIDTH, MUTED, axes_or_new, in_paper_style, run_colors


class HasMetadata(Protocol):
    """A dictionary, as far as its colour goes."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...


class EvidenceLine(Protocol):
    """Whatever can say in one line how far to believe the picture."""

    def line(self) -> str: ...


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
        s=float(np.clip(9000 / len(order), 0.3, 14)),
        alpha=0.75,
        linewidths=0,
        rasterized=True,
    )
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.set_anchor("C")
    ax.margins(0.03)
    for spine in ax.spines.values():
        spine.set_visible(False)
    counts = np.bincount(embedding.owner, minlength=len(embedding.names))
    for i, name in enumerate(embedding.names):
        ax.annotate(
            f"● {name} ({counts[i]:,})",
            (0, 1),
            (0, 10 * (len(embedding.names) - 1 - i) + 2),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colors[name],
            fontsize=7.5,
            va="bottom",
        )
    if evidence:
        p = embedding.params
        text = (
            f"UMAP, exact cosine neighbours (k = {p['n_neighbors']}), seed {p['seed']}, {p['backend']} "
            f"{p['backend_version']}; {embedding.evidence.line()}"
        )
        ax.set_xlabel("\n".join(textwrap.wrap(text, 72)), fontsize=5.5, color=MUTED, loc="left")
    return ax
