"""Feature consistency (Song et al. 2025): `python -m analyses.feature_consistency`."""
