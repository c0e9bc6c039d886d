"""Weights & Biases: runs, their records and files."""
