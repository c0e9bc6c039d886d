"""Limits on time and size for Hugging Face's client, and the translation of its exceptions to `SourceError`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from sae_geometry.io.redaction import hide, without_secrets
from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Context, Progress
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import MAX_ANSWER, Pace, RefusedError, UnreachableError, in_time, limits

T = TypeVar("T")

_MAX_REDIRECT = 1 << 16
_MAX_FILE = 1 << 40
_NAME = re.compile(r"\w[\w.\-]{0,254}")


@contextmanager
def bounded(address: Address, context: Context) -> Iterator[Watch]:
    """Run Hugging Face's client within our limits, and translate its exceptions to `SourceError`."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    hide(huggingface_hub.get_token())
    session = huggingface_hub.get_session()
    offline = context.offline or bool(constants.HF_HUB_OFFLINE)
    watch = Watch(str(address), replace(context, offline=offline))
    hooks, xet = session.event_hooks, constants.HF_HUB_DISABLE_XET
    session.event_hooks = {
        "request": [*hooks.get("request", []), watch.asked],
        "response": [*hooks.get("response", []), watch.answered],
    }
    constants.HF_HUB_DISABLE_XET = True  # Xet transfers ignore our time limits.
    try:
        yield watch
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
            f"{address}: the repository does not exist or is private; check the spelling, or set HF_TOKEN", 404
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RefusedError(f"{address}: the repository has no revision {address.revision!r}", 404) from error
    except errors.LocalEntryNotFoundError as error:
        raise watch.lost(_cause(error)) from error
    except errors.EntryNotFoundError as error:
        raise RefusedError(f"{address}: the repository has no such file", 404) from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{address}: the server's response is not JSON; is HF_ENDPOINT right?") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        said = " ".join(without_secrets(str(error)).split())[:160]
        raise SourceError(f"{address}: the server's response is invalid ({type(error).__name__}: {said})") from error
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("httpx", "huggingface_hub")):
            raise
        raise watch.lost(_cause(error)) from error
    finally:
        session.event_hooks, constants.HF_HUB_DISABLE_XET = hooks, xet


class Watch:
    """Request and response hooks that limit time, rate and retries, and refuse names that point outside the cache."""

    def __init__(self, what: str, context: Context) -> None:
        self.what, self.context = what, context
        self.made: dict[tuple[str, str], int] = {}
        self.since: float | None = None
        self.stopped = False

    def lost(self, why: object) -> UnreachableError:
        """Return the exception to raise for an incomplete response, with the reason `why`."""
        return UnreachableError(f"{self.what}: {why}; try again later, or use --offline for cached files")

    def within(self, ask: Callable[[], T]) -> T:
        """Call the client and return its result; abandon the call if response headers do not arrive in time."""
        self.stopped = False
        try:
            return in_time(ask, self._waits)
        except TimeoutError as error:
            raise self.lost("no response in time") from error
        finally:
            self.stopped = True  # An abandoned client stops at its next request or piece of data.

    def _waits(self) -> bool:
        return self.since is not None and time.monotonic() - self.since > limits().connect + limits().silence

    def go_on(self) -> None:
        """Raise UnreachableError if the caller has abandoned the client."""
        if self.stopped:
            raise UnreachableError(f"{self.what}: abandoned")

    def asked(self, request: Any) -> None:
        """Limit the time of a request and the number of attempts; called before each request."""
        self.go_on()
        self.since = time.monotonic()
        key = (str(request.method), str(request.url))
        self.made[key] = self.made.get(key, 0) + 1
        if self.made[key] > limits().tries:
            raise self.lost(f"no complete response after {limits().tries} tries")
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["timeout"] = {
            "connect": limits().connect, "read": limits().silence, "write": limits().silence, "pool": limits().connect,
        }  # fmt: skip

    def answered(self, response: Any) -> None:
        """Check the headers of a response, and limit the rate and size of its body; called after each response."""
        self.since = None
        for header in ("retry-after", "ratelimit"):  # The client would wait as long as these headers say.
            response.headers.pop(header, None)
        if response.request.method == "HEAD":
            for header in ("etag", "x-linked-etag", "x-repo-commit"):
                value = response.headers.get(header, "").removeprefix("W/").strip('"')
                if value and not _NAME.fullmatch(value):
                    raise SourceError(f"{self.what}: the server sent a blob or commit named {value[:80]!a}; refused")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise SourceError(f"{self.what}: the server compressed its response, although we asked it not to; refused")
        if response.has_redirect_location:
            most, refused = _MAX_REDIRECT, False  # The body of a redirect is not used: truncate it.
        else:
            most, refused = (MAX_ANSWER if "/api/" in str(response.request.url.path) else _MAX_FILE), True
        response.stream = self._paced(response.stream, most, refused)

    def _paced(self, stream: Any, most: int, refused: bool) -> Any:
        """Wrap a response stream to limit its rate and size; the wrapper is a subclass of the stream's class."""
        watch = self

        class Paced(type(stream)):  # type: ignore[misc]
            def __init__(self) -> None:
                self.n, self.pace = 0, Pace()

            def __iter__(self) -> Iterator[bytes]:
                for piece in stream:
                    watch.go_on()
                    self.n += len(piece)
                    if self.n > most and refused:
                        raise SourceError(f"{watch.what}: the response exceeds its limit of {most:,} bytes; stopped")
                    if self.n > most:
                        return
                    try:
                        self.pace.add(len(piece))
                    except ConnectionError as error:
                        raise watch.lost(error) from error
                    yield piece

            def close(self) -> None:
                stream.close()

        return Paced()


def _cause(error: BaseException) -> str:
    """Return a few words on the root cause of an exception."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    status = getattr(getattr(deepest, "response", None), "status_code", None)
    if status is not None:
        said = {401: "not signed in (401)", 403: "permission denied (403)", 429: "too many requests (429)"}
        return said.get(status, f"the server failed ({status})")
    kind, text = type(deepest).__name__, str(deepest)
    if "Timeout" in kind:
        return "no response in time"
    if "Connect" in kind or "refused" in text.lower():
        return "connection refused, or no network"
    if "Consistency check" in text or "Protocol" in kind:
        return "the connection was lost"
    return " ".join(without_secrets(text).split())[:160] or kind


def bar_class(name: str, progress: Progress | None) -> Any:
    """Return a progress bar class for Hugging Face's client that calls `progress` and draws nothing."""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):
        monitor_interval = 0  # Otherwise, tqdm starts a thread that redraws stalled bars and outlives the download.

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._whole, self._done = kwargs.get("total"), float(kwargs.get("initial") or 0)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: int | float | None = 1) -> None:
            self._done += n or 0
            if progress is not None and self._whole:
                progress(name, min(1.0, self._done / self._whole))

    return Silent
