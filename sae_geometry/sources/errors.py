"""Errors of resolving and reading an address, which any function of this package may raise.

Every message is one sentence a user can act on.
"""

from __future__ import annotations


class SourceError(ValueError):
    """A dictionary could not be read: missing, damaged, refused or unreachable."""


class AddressError(SourceError):
    """The address is wrong or ambiguous; the message shows valid spellings."""


class LayoutError(SourceError):
    """The file was read, but holds no decoder (or several) that the table of layouts recognizes."""
