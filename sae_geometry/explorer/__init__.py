"""Explorer: a UMAP as one self-contained HTML file that needs no network.

`contents.py` gathers what a page shows, from an embedding or from the folder it was saved to. `packing.py` converts the
table to typed arrays. `writing.py` fills them into `page/`: a template, a style sheet, scripts in plain JavaScript.
"""

from sae_geometry.explorer.contents import Contents
from sae_geometry.explorer.explore import add_page, explore
from sae_geometry.explorer.writing import page, require_plotly
