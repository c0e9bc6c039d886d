"""Text made fit to be written down: names that the locale could not decode, no secret in anything, no endless lists."""

from __future__ import annotations

import base64
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
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


def readable(text: str) -> str:
    """`text` with the bytes that Python could not decode (a locale without them) decoded as UTF-8 after all.

    Such bytes come from file names as lone surrogates, which open the file but cannot be printed, saved or drawn.

    Example:
        >>> readable(b"caf\\xc3\\xa9.pt".decode("ascii", "surrogateescape"))
        'café.pt'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


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


def counted(n: int, noun: str, nouns: str | None = None) -> str:
    """A number and its noun, in the plural unless the number is one.

    Example:
        >>> counted(1, "latent"), counted(2048, "latent"), counted(2, "dictionary", "dictionaries")
        ('1 latent', '2,048 latents', '2 dictionaries')
    """
    return f"{n:,} {noun if n == 1 else nouns or noun + 's'}"


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
