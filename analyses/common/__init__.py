"""Code shared by the reproductions."""
