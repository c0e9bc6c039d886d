"""Errors of a reproduction, each of one sentence."""

from __future__ import annotations


class AnalysisError(ValueError):
    """A wrong file or option: the user can mend it."""


class UnavailableError(Exception):
    """Something that a figure or a value needs cannot be had here; the others go on."""
