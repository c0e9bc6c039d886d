"""The explorer: one HTML file with a UMAP in it, that opens anywhere and asks nothing of the network.

`contents.py` gathers what a page shows, from an embedding or from the folder it was saved to. `packing.py` turns the
table into typed arrays. `writing.py` fills them into `page/`: a template, a style sheet, scripts in plain JavaScript.
"""

from sae_geometry.explorer.contents import Contents
from sae_geometry.explorer.explore import add_page, explore
from sae_geometry.explorer.writing import page, require_plotly

__all__ = ["Contents", "add_page", "explore", "page", "require_plotly"]
