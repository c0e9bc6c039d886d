"""`python -m sae_geometry` is `sae-geometry`."""

from sae_geometry.cli import main

main()
