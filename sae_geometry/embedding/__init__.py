"""UMAP: exact neighbors, the layout and its optimizer, regions, quality and projection."""
