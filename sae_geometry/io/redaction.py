"""Remove keys and tokens from printed or saved text."""

from __future__ import annotations

import base64
import os
import re

_HIDDEN = "***"
_KNOWN: set[str] = set()
_KEYS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # minimum length of a redacted key (shorter ones occur in ordinary words)
_USER = re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^\s/?#]*@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&;][\w.\-]*(?:key|token|secret|sig|signature|password|credential|auth)=)[^&;#\s'\"]+", re.IGNORECASE
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")


def without_secrets(text: str) -> str:
    """Replace with *** all keys from the environment, keys passed to `hide`, and text that looks like a token.

    In a URL, also replace the user name and password, and the values of query parameters with names such as token or
    key.

    Example:
        >>> without_secrets("fetching https://me:secret@example.org/x?token=abc&n=1")
        'fetching https://***@example.org/x?token=***&n=1'
    """
    known = {*_KNOWN, *(os.environ.get(name, "").strip() for name in _KEYS)}
    for key in sorted(known, key=len, reverse=True):  # One key may begin with another.
        if len(key) >= _SHORTEST:
            text = text.replace(key, _HIDDEN).replace(base64.b64encode(f"api:{key}".encode()).decode(), _HIDDEN)
    text = _USER.sub(rf"\1{_HIDDEN}@", text)
    return _TOKEN.sub(_HIDDEN, _QUERY.sub(rf"\1{_HIDDEN}", text))


def hide(key: str | None) -> None:
    """Have `without_secrets` redact this key from now on. Call this function after reading a key from a file.

    Example:
        >>> hide("open-sesame")
        >>> without_secrets("it says open-sesame")
        'it says ***'
    """
    if key:
        _KNOWN.add(key)
