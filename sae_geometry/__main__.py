"""Run the `sae-geometry` program for `python -m sae_geometry`."""

from sae_geometry.cli import main

main()
