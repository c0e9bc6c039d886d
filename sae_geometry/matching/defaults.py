"""Defaults that several questions share."""

from __future__ import annotations

SMALL = 4096  # latents per side up to which an optimal matching is a matter of seconds
MOST_RUNS = 24  # runs up to which an embedding compares every two; more are a comparison of their own
