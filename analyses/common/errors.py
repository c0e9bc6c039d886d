"""Errors of a reproduction. Their messages are one sentence."""

from __future__ import annotations


class AnalysisError(ValueError):
    """A file or option is wrong, and the user can correct it."""


class UnavailableError(Exception):
    """Something that a figure or value needs is not available. Other figures are still made."""
