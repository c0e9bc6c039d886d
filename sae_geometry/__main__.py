"""Entry point of `python -m sae_geometry`, which is the same as `sae-geometry`."""

from sae_geometry.cli import main

main()
