"""Escape invisible characters and control codes, so that names from files and servers are safe to display."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import accumulate

_UNDECODED = re.compile("[\udc80-\udcff]+")  # Python represents undecodable bytes by these characters.
_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters; invisible marks of direction, order and language; lone surrogates; and non-characters.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


def readable(text: str) -> str:
    """Return `text` with its undecoded bytes decoded as UTF-8.

    In a locale without UTF-8, file names hold such bytes as lone surrogates, which cannot be printed, saved or drawn.

    Example:
        >>> readable(b"caf\\xc3\\xa9.pt".decode("ascii", "surrogateescape"))
        'café.pt'
    """
    return _SURROGATE.sub("\ufffd", _UNDECODED.sub(lambda found: _bytes_of(found[0]).decode("utf-8", "replace"), text))


def escaped(text: str) -> str:
    """Return `text` on one line, with invisible characters and terminal control codes escaped.

    Control characters, marks of writing direction, lone surrogates and non-characters are escaped. All other characters
    are unchanged, so the function is idempotent.

    Example:
        >>> escaped("a\\x1b[2Jb\\u202ec\\n")
        'a\\\\x1b[2Jb\\\\u202ec\\\\n'
    """
    whole = _UNDECODED.sub(lambda found: _bytes_of(found[0]).decode("utf-8", "backslashreplace"), text)
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), whole)


def shown(name: object, most: int = 200) -> str:
    """Return a name escaped for display, and shortened in the middle to at most `most` terminal cells.

    Example:
        >>> shown("run\\n1"), len(shown("x" * 5000))
        ('run\\\\n1', 200)
    """
    text = escaped(str(name))
    if cells(text) <= most:
        return text
    first = most * 2 // 3
    return f"{_start(text, first)}…{_start(text[::-1], most - first - 1)[::-1]}"


def cells(text: str) -> int:
    """Return the number of terminal cells that text takes: two for an East Asian wide character, one for any other.

    Example:
        >>> cells("run"), cells("辞書")
        (3, 4)
    """
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _start(text: str, most: int) -> str:
    """Return the longest prefix of `text` that fits in `most` terminal cells."""
    return text[: sum(end <= most for end in accumulate(map(_cells_of, text)))]


def printable(text: str) -> str:
    """Return text with each of its lines escaped, so that it is safe to print."""
    return "\n".join(map(escaped, text.split("\n")))


def json_escaped(text: str) -> str:
    """Return equivalent JSON in which JSON escapes replace the characters that `escaped` would escape."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def cell(text: str) -> str:
    """Return text for a cell of a CSV file, with a leading quote if a spreadsheet would read it as a formula.

    Example:
        >>> cell("=1+1"), cell("run")
        ("'=1+1", 'run')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _bytes_of(undecoded: str) -> bytes:
    return undecoded.encode("ascii", "surrogateescape")
