"""Text made fit to be written down: names that the locale could not decode, no secret in anything, no endless lists."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Sequence

_HIDDEN = "***"
_TOLD: set[str] = set()
_KEYS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # of a key that is looked for: a shorter one is in every other word
_USER = re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^\s/?#]*@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;][\w.\-]*(?:key|token|secret|sig|signature|password|credential|auth)=)[^&;#\s'\"]+", re.IGNORECASE
)
_UNDECODED = re.compile("[\udc80-\udcff]+")  # bytes, as Python puts them into text
_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters; invisible marks of direction, order and language; lone surrogates; what is no character at all.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\ufdd0-\ufdef\ufffe\uffff\U000e0000-\U000e007f]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


def readable(text: str) -> str:
    """Return `text` with the bytes that Python could not decode (a locale without them) decoded as UTF-8 after all.

    Such bytes come from file names as lone surrogates, which open the file but cannot be printed, saved or drawn.

    Example:
        >>> readable(b"caf\\xc3\\xa9.pt".decode("ascii", "surrogateescape"))
        'café.pt'
    """
    return _SURROGATE.sub("\ufffd", _UNDECODED.sub(lambda found: _bytes_of(found[0]).decode("utf-8", "replace"), text))


def escaped(text: str) -> str:
    """Return `text` in one line, with escapes for what a reader cannot see or a terminal obeys.

    That is control characters, marks that turn the direction of writing, lone surrogates and non-characters. The rest
    stays, so that escaping twice is escaping once.

    Example:
        >>> escaped("a\\x1b[2Jb\\u202ec\\n")
        'a\\\\x1b[2Jb\\\\u202ec\\\\n'
    """
    whole = _UNDECODED.sub(lambda found: _bytes_of(found[0]).decode("utf-8", "backslashreplace"), text)
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), whole)


def shown(name: object, most: int = 200) -> str:
    """Return a name from outside as it is shown anywhere: escaped, and cut in the middle beyond `most` characters.

    Example:
        >>> shown("run\\n1"), len(shown("x" * 5000))
        ('run\\\\n1', 200)
    """
    text = escaped(str(name))
    return text if len(text) <= most else f"{text[: most * 2 // 3]}…{text[-(most - most * 2 // 3 - 1) :]}"


def printable(text: str) -> str:
    """Return text of several lines, each of them escaped: what is safe to print."""
    return "\n".join(map(escaped, text.split("\n")))


def json_escaped(text: str) -> str:
    """Return JSON with escapes of its own for what `escaped` escapes: the same values, safe to print."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def cell(text: str) -> str:
    """Return a text as a cell of a CSV file: one that a spreadsheet would take for a formula gets a quote before it.

    Example:
        >>> cell("=1+1"), cell("run")
        ("'=1+1", 'run')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def without_secrets(text: str) -> str:
    """`text` with *** in place of keys: those of the environment, those `hide` was told of, and tokens by their look.

    Of a URL that is what stands before the @ of its host, and the values in its query of what is called token, key and
    the like.

    Example:
        >>> without_secrets("fetching https://me:secret@example.org/x?token=abc&n=1")
        'fetching https://***@example.org/x?token=***&n=1'
    """
    for key in _configured():
        text = text.replace(key, _HIDDEN)
    text = _USER.sub(rf"\1{_HIDDEN}@", text)
    return _TOKEN.sub(_HIDDEN, _QUERY.sub(rf"\1{_HIDDEN}", text))


def ends(texts: Sequence[str], most: int = 12) -> list[str]:
    """The texts, or the first and last of more than `most`.

    Example:
        >>> ends(list("abcdef"), 4)
        ['a', 'b', '…', 'e', 'f']
    """
    half = most // 2
    return list(texts) if len(texts) <= most else [*texts[:half], "…", *texts[-half:]]


def few(notes: Sequence[str], most: int = 30) -> tuple[str, ...]:
    """The notes, each once; of more than `most` the first, and how many there are besides.

    Example:
        >>> few(["a", "b", "a", "c", "d"], 2)
        ('a', 'b', 'and 2 more')
    """
    once = list(dict.fromkeys(notes))
    more = len(once) - most
    return tuple(once) if more <= 0 else (*once[:most], f"and {more:,} more")


def hide(key: str | None) -> None:
    """From now on `without_secrets` takes this key out too: for whoever reads one from a file.

    Example:
        >>> hide("open-sesame")
        >>> without_secrets("it says open-sesame")
        'it says ***'
    """
    if key:
        _TOLD.add(key)


def _configured() -> Iterator[str]:
    """The keys that are known, as they are and as they travel."""
    known = {*_TOLD, *(os.environ.get(name, "").strip() for name in _KEYS)}
    for key in sorted(known, key=len, reverse=True):  # one may begin with another
        if len(key) >= _SHORTEST:
            yield key
            yield base64.b64encode(f"api:{key}".encode()).decode()


def _bytes_of(undecoded: str) -> bytes:
    return undecoded.encode("ascii", "surrogateescape")
