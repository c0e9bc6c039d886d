"""What can go wrong between an address and a dictionary. Every message is one sentence a user can act on."""

from __future__ import annotations


class SourceError(ValueError):
    """A dictionary could not be had from where it was asked for: missing, damaged, refused, out of reach."""


class AddressError(SourceError):
    """The address itself is wrong or could mean two things; the message shows the spellings that would do."""


class LayoutError(SourceError):
    """The file was read, but holds no decoder (or several) that the table of layouts recognises."""
