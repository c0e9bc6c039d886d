"""The geometry of the end-to-end paper (Braun et al. 2024): `python -m analyses.e2e_paper`."""
