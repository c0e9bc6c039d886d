"""Exceptions raised while an address is resolved or read; each message is one sentence on which a user can act."""

from __future__ import annotations


class SourceError(ValueError):
    """A dictionary is missing, damaged or unreachable, or access to it was refused."""


class AddressError(SourceError):
    """The address is wrong or ambiguous; the message shows valid spellings."""


class LayoutError(SourceError):
    """No decoder, or more than one decoder, was recognized in a file that could be read."""
