"""Exceptions raised while an address is resolved or read; each message is one sentence that a user can act on."""

from __future__ import annotations


class SourceError(ValueError):
    """A dictionary could not be read: it is missing, damaged or unreachable, or access was refused."""


class AddressError(SourceError):
    """The address is wrong or ambiguous; the message shows valid spellings."""


class LayoutError(SourceError):
    """The file was read, but the table of layouts recognizes no decoder in it, or more than one."""
