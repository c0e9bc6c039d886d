"""Figures for papers. Every function takes `ax=None`, draws on it and returns it; none computes a result.

Similarity figures draw lists of `Matching`; embedding figures draw any object with the attributes of an `Embedding`.
"""

from sae_geometry.plots.agreement import agreement_figure, frequency_figure, frequency_hexbin
from sae_geometry.plots.embedding import (
    check_colors,
    embedding_scatter,
    projection_figure,
    runs_figure,
    unmatched_scatter,
)
from sae_geometry.plots.panels import draw_panels, facet_figure, panel_range, panel_shares
from sae_geometry.plots.partners import partners_histogram
from sae_geometry.plots.seeds import (
    rarefaction_curve,
    recurrence_bars,
    recurrence_figure,
    ridgeline_figure,
    seeds_figure,
    seeds_heatmap,
)
from sae_geometry.plots.similarity import (
    counting_bars,
    draw_similarity,
    multiplicity_bars,
    similarity_ecdf,
    similarity_figure,
    similarity_histogram,
)
from sae_geometry.plots.splitting import children_bars, explained_ecdf, splitting_figure
from sae_geometry.plots.style import COLUMN_WIDTH, PAGE_WIDTH, figure_of, paper_style, run_colors, save_figure
from sae_geometry.plots.subspaces import span_curve, span_figure

__all__ = [
    "COLUMN_WIDTH",
    "PAGE_WIDTH",
    "agreement_figure",
    "check_colors",
    "children_bars",
    "counting_bars",
    "draw_panels",
    "draw_similarity",
    "embedding_scatter",
    "explained_ecdf",
    "facet_figure",
    "figure_of",
    "frequency_figure",
    "frequency_hexbin",
    "multiplicity_bars",
    "panel_range",
    "panel_shares",
    "paper_style",
    "partners_histogram",
    "projection_figure",
    "rarefaction_curve",
    "recurrence_bars",
    "recurrence_figure",
    "ridgeline_figure",
    "run_colors",
    "runs_figure",
    "save_figure",
    "seeds_figure",
    "seeds_heatmap",
    "similarity_ecdf",
    "similarity_figure",
    "similarity_histogram",
    "span_curve",
    "span_figure",
    "splitting_figure",
    "unmatched_scatter",
]
