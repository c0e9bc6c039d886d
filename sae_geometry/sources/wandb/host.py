"""The configured W&B server and key. Imports no client."""

from __future__ import annotations

import base64
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from sae_geometry.io.redaction import hide
from sae_geometry.sources.cache import run_folder
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import Credentials, origin_of

# The public runs of the papers are on this server; the client's default has changed.
_DEFAULT = "https://api.wandb.ai"


def base_url() -> str:
    """Return `$WANDB_BASE_URL`, or https://api.wandb.ai."""
    url = (os.environ.get("WANDB_BASE_URL") or _DEFAULT).rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        origin_of(url)
    except ValueError:
        good = False
    if not good:
        raise SourceError("WANDB_BASE_URL is not the URL of a server, like https://api.wandb.ai")
    return url


def folder_of(run: str) -> Path:
    """Return the folder of a run, or of one version of an artifact, in the cache."""
    return run_folder(origin_of(base_url()).partition("://")[2], run)


def api_key() -> str | None:
    """Return the key for the server: `$WANDB_API_KEY`, or the entry of `wandb login` in .netrc."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    given = os.environ.get("NETRC")
    places = [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for place in places:
        try:
            entry = netrc.netrc(str(place)).hosts.get(urlsplit(base_url()).netloc)
        except (OSError, netrc.NetrcParseError):
            continue
        if entry is not None and entry[2]:
            hide(entry[2])
            return entry[2]
    return None


def credentials_for(key: str | None) -> Credentials | None:
    """Return the header with the key, for the configured server only; None without a key."""
    if key is None:
        return None
    token = base64.b64encode(f"api:{key}".encode()).decode()
    return Credentials(origin_of(base_url()), f"Basic {token}")


def how_to_sign_in() -> str:
    """Return instructions for a run that needs a key."""
    return "set WANDB_API_KEY (wandb.ai/authorize shows yours) or run `wandb login`"
