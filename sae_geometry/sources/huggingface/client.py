"""Hugging Face's client made to keep our limits, and its many exceptions as one sentence each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sae_geometry.io.redaction import hide, without_secrets
from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Progress
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import RefusedError, UnreachableError, limits


@contextmanager
def bounded(address: Address) -> Iterator[bool]:
    """Hugging Face's client within our limits, its exceptions as one sentence each. Gives whether it is set offline."""
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise SourceError("reading hf:// needs huggingface_hub: pip install huggingface_hub") from error
    hide(huggingface_hub.get_token())
    session = huggingface_hub.get_session()
    hooks, xet = session.event_hooks, constants.HF_HUB_DISABLE_XET
    session.event_hooks = {**hooks, "request": [*hooks.get("request", []), _counting(str(address))]}
    constants.HF_HUB_DISABLE_XET = True  # its transfers know no time limits
    try:
        yield bool(constants.HF_HUB_OFFLINE)
    except SourceError:
        raise
    except errors.GatedRepoError as error:
        raise RefusedError(
            f"{address} is gated: accept its terms at huggingface.co/{address.place}, then set HF_TOKEN or run "
            "`hf auth login`",
            403,
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RefusedError(
            f"{address}: there is no such repository, or it is private: check the spelling, or set HF_TOKEN", 404
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RefusedError(f"{address}: the repository has no revision {address.revision!r}", 404) from error
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise UnreachableError(f"{address}: {_cause(error)}; try again later, or --offline") from error
        raise RefusedError(f"{address}: the repository has no such file", 404) from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{address}: the server's answer is not JSON; is HF_ENDPOINT right?") from error
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("httpx", "huggingface_hub")):
            raise
        raise UnreachableError(f"{address}: {_cause(error)}; try again later, or --offline") from error
    finally:
        session.event_hooks, constants.HF_HUB_DISABLE_XET = hooks, xet


def _counting(what: str) -> Callable[[Any], None]:
    """A hook for every request: our time limits on it, and no more than so many for one URL."""
    made: dict[tuple[str, str], int] = {}

    def hook(request: Any) -> None:
        key = (str(request.method), str(request.url))
        made[key] = made.get(key, 0) + 1
        if made[key] > limits().tries:
            raise UnreachableError(
                f"{what}: no whole answer after {limits().tries} tries; try again later, or --offline"
            )
        request.extensions["timeout"] = {
            "connect": limits().connect, "read": limits().silence, "write": limits().silence, "pool": limits().connect,
        }  # fmt: skip

    return hook


def _cause(error: BaseException) -> str:
    """The first cause that says something, in a few words."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    status = getattr(getattr(deepest, "response", None), "status_code", None)
    if status is not None:
        said = {401: "not signed in (401)", 403: "permission denied (403)", 429: "too many requests (429)"}
        return said.get(status, f"the server failed ({status})")
    kind, text = type(deepest).__name__, str(deepest)
    if "Timeout" in kind:
        return "no answer in time"
    if "Connect" in kind or "refused" in text.lower():
        return "connection refused, or no network"
    if "Consistency check" in text or "Protocol" in kind:
        return "the connection broke off"
    return " ".join(without_secrets(text).split())[:160] or kind


def bar_class(name: str, progress: Progress | None) -> Any:
    """A progress bar for Hugging Face's client that draws nothing and tells us."""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._whole, self._done = kwargs.get("total"), float(kwargs.get("initial") or 0)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: int | float | None = 1) -> None:
            self._done += n or 0
            if progress is not None and self._whole:
                progress(name, min(1.0, self._done / self._whole))

    return Silent
