"""Explorer: a UMAP or a flow as one self-contained HTML file that needs no network.

`contents.py` and `flow_contents.py` gather the contents of a page from a result or its folder. `packing.py` packs the
table as typed arrays, and `writing.py` inserts them into `page/`: a template, a style sheet, and plain JavaScript.
"""

from sae_geometry.explorer.contents import Contents
from sae_geometry.explorer.explore import add_page, explore
from sae_geometry.explorer.writing import page, require_plotly
