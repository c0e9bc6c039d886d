"""Explorer: a UMAP or a flow as one self-contained HTML file that needs no network.

`contents.py` gathers the contents of a page from an embedding or from the folder it was saved to. `packing.py` converts
the table to typed arrays. `writing.py` inserts them into `page/`: a template, a style sheet, and plain JavaScript.
"""

from sae_geometry.explorer.contents import Contents
from sae_geometry.explorer.explore import add_page, explore
from sae_geometry.explorer.writing import page, require_plotly
