"""The answer as one figure: how many latents have a partner in the other dictionary, and how close."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from sae_geometry.matching.defaults import THRESHOLD
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.plots.style import MUTED, axes_or_new, in_paper_style, plain

COLORS = ("#BBBBBB", "#56B4E9", "#0072B2")
_BINS = 50


@in_paper_style
def partners_histogram(nearest: Matching, ax: Axes | None = None, *, threshold: float = THRESHOLD) -> Axes:
    """Draw the similarity of each latent to its nearest, stacked by class: above the threshold, significant, neither.

    The mean and its null expectation are dotted lines; the share of each class stands in the legend.

    Args:
        nearest: one direction of a nearest matching.
        ax: axes to draw on; a new figure if None.
        threshold: similarity above which a latent counts as found again.
    """
    ax = axes_or_new(ax, 3.6, 2.9)
    similarity = nearest.similarity
    above = similarity > threshold
    classes = (~above & ~nearest.significant, ~above & nearest.significant, above)
    known = similarity[np.isfinite(similarity)]
    low = min(0.0, float(known.min())) if len(known) else 0.0
    labels = ["not significant", f"significant, up to {threshold:g}", f"above {threshold:g}"]
    ax.hist(
        [similarity[members & np.isfinite(similarity)] for members in classes],
        bins=np.linspace(low, 1.0, _BINS + 1).tolist(),
        stacked=True,
        color=list(COLORS),
        label=[f"{label}: {members.mean():.0%}" for label, members in zip(labels, classes, strict=True)],
    )
    for at, style, words in (
        (nearest.chance, ":", f"mean by chance {nearest.chance:.2f}"),
        (nearest.mean_similarity, "--", f"mean {nearest.mean_similarity:.2f}"),
    ):
        if np.isfinite(at):
            ax.axvline(at, color=MUTED, linewidth=0.9, linestyle=style, label=words)
    ax.set(xlim=(low, 1.0), xlabel=f"{nearest.quantity} to the nearest latent", ylabel="latents")
    ax.set_title(f"{plain(nearest.source)} in {plain(nearest.target)}", loc="left")
    ax.figure.legend(loc="outside lower left", ncols=2, fontsize=6.5, handlelength=1.6)
    return ax
