"""Text from the file system made fit to be written down."""

from __future__ import annotations


def readable(text: str) -> str:
    """`text` with the bytes that Python could not decode (a locale without them) decoded as UTF-8 after all.

    Such bytes come from file names as lone surrogates, which open the file but cannot be printed, saved or drawn.

    Example:
        >>> readable(b"caf\\xc3\\xa9.pt".decode("ascii", "surrogateescape"))
        'café.pt'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
