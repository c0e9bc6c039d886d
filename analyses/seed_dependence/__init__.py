"""Do seeds learn the same latents? (Paulo & Belrose 2025): `python -m analyses.seed_dependence`."""
