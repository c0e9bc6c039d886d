"""Keys and tokens taken out of whatever is printed or saved."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator

_HIDDEN = "***"
_TOLD: set[str] = set()
_KEYS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # of a key that is looked for: a shorter one is in every other word
_USER = re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^\s/?#]*@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;][\w.\-]*(?:key|token|secret|sig|signature|password|credential|auth)=)[^&;#\s'\"]+", re.IGNORECASE
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


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
