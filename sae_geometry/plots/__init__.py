"""Figures for papers, drawn from results that were computed elsewhere.

Most functions draw on `ax`, or on new axes if it is None, and return the axes; `…_figure` functions return a figure.
Draw on your own axes inside `paper_style()`, so that everything you add has the same style; `COLUMN_WIDTH` and
`PAGE_WIDTH` are in inches. The legend (unless `legend=False`) is outside the axes if the layout makes room, or inside.

Similarity figures draw lists of `Matching`; embedding figures draw any object with the attributes of an `Embedding`;
other figures draw the result of one comparison.
"""

from sae_geometry.plots.agreement import agreement_figure, frequency_hexbin
from sae_geometry.plots.by_index import by_index_figure, relative_norm_histogram, same_id_histogram
from sae_geometry.plots.drift import drift_bands
from sae_geometry.plots.embedding import (
    check_colors,
    embedding_scatter,
    projection_figure,
    runs_figure,
    unmatched_scatter,
)
from sae_geometry.plots.flow import flow_bundles, flow_counts, flow_figure
from sae_geometry.plots.nearest import nearest_ranks
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
    certainty_curve,
    counting_bars,
    draw_similarity,
    multiplicity_bars,
    similarity_ecdf,
    similarity_figure,
    similarity_histogram,
)
from sae_geometry.plots.span import span_curve, span_figure
from sae_geometry.plots.splitting import children_bars, explained_ecdf, splitting_figure
from sae_geometry.plots.style import COLUMN_WIDTH, PAGE_WIDTH, figure_of, paper_style, run_colors, save_figure
from sae_geometry.plots.tokens import tokens_ecdf

__all__ = [
    "COLUMN_WIDTH",
    "PAGE_WIDTH",
    "agreement_figure",
    "by_index_figure",
    "certainty_curve",
    "check_colors",
    "children_bars",
    "counting_bars",
    "draw_panels",
    "draw_similarity",
    "drift_bands",
    "embedding_scatter",
    "explained_ecdf",
    "facet_figure",
    "figure_of",
    "flow_bundles",
    "flow_counts",
    "flow_figure",
    "frequency_hexbin",
    "multiplicity_bars",
    "nearest_ranks",
    "panel_range",
    "panel_shares",
    "paper_style",
    "partners_histogram",
    "projection_figure",
    "rarefaction_curve",
    "recurrence_bars",
    "recurrence_figure",
    "relative_norm_histogram",
    "ridgeline_figure",
    "run_colors",
    "runs_figure",
    "same_id_histogram",
    "save_figure",
    "seeds_figure",
    "seeds_heatmap",
    "similarity_ecdf",
    "similarity_figure",
    "similarity_histogram",
    "span_curve",
    "span_figure",
    "splitting_figure",
    "tokens_ecdf",
    "unmatched_scatter",
]
