"""HTTP requests with limits on time, size, rate, retries and redirects; credentials are sent only to their own host.

`requests` follows redirects, and drops credentials if the origin changes. Retries are counted here, because
`urllib3.Retry` does not cover truncated bodies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

from sae_geometry.io.redaction import without_secrets
from sae_geometry.kernels.settings import Limits, current
from sae_geometry.sources.errors import SourceError

T = TypeVar("T")

_MAX_REDIRECTS = 5
MAX_ANSWER = 32 << 20  # maximum size of a JSON response in bytes; parsed, it can take 20 times as much
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


def limits() -> Limits:
    """Return the network limits in the current settings."""
    return current().limits


@dataclass(frozen=True)
class Credentials:
    """An Authorization header, and the only origin to which it may be sent."""

    origin: str
    header: str = field(repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the Authorization header if `url` has this origin, and otherwise an empty dict."""
        return {"Authorization": self.header} if origin_of(url) == self.origin else {}


class RefusedError(SourceError):
    """The server refused the request permanently, for example with status 401, 403 or 404."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(SourceError):
    """The server did not send a complete response in time, even after all retries."""


def origin_of(url: str) -> str:
    """Return the normalized scheme, host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


@contextmanager
def open_url(
    method: str, url: str, *, headers: Mapping[str, str], credentials: Credentials | None, data: bytes | None = None
) -> Iterator[Any]:
    """Yield the response to a request, with its body unread; raise ConnectionError if a retry may succeed."""
    import requests

    sent = {**headers, **(credentials.headers_for(url) if credentials else {})}
    with _session() as session:
        how = {"stream": True, "auth": lambda r: r, "timeout": (limits().connect, limits().silence)}
        try:
            answer = in_time(lambda: session.request(method, url, headers=sent, data=data, **how))
        except SourceError:
            raise
        except (requests.exceptions.Timeout, TimeoutError) as error:
            raise ConnectionError("no response in time") from error
        except requests.exceptions.TooManyRedirects as error:
            raise SourceError(f"{origin_of(url)} redirected more than {_MAX_REDIRECTS} times; refused") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise ConnectionError(_why(error)) from error
        except (requests.exceptions.RequestException, ValueError, LookupError) as error:
            raise SourceError(f"{origin_of(url)}: the request could not be sent ({type(error).__name__})") from error
        with answer:
            yield answer


def _session() -> Any:
    """Return a session that follows only redirects to http(s), none from https to http, and adds no credentials."""
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: Any) -> str | None:
            if not resp.is_redirect:
                return None
            resp.close()  # Do not read the body, which may never end.
            here = str(resp.url)
            try:
                there = urlsplit(urljoin(here, resp.headers["location"]))
                origin_of(there.geturl())
            except ValueError:
                raise SourceError(f"{origin_of(here)} redirects to an invalid URL; refused") from None
            if there.scheme not in {"http", "https"} or (here.startswith("https:") and there.scheme == "http"):
                shown = without_secrets(there.geturl().partition("?")[0])[:120]
                raise SourceError(f"{origin_of(here)} redirects to {shown!r}; refused")
            return super().get_redirect_target(resp)

        def rebuild_auth(self, prepared_request: Any, response: Any) -> None:
            if self.should_strip_auth(response.request.url, prepared_request.url):
                prepared_request.headers.pop("Authorization", None)

    session = Session()
    session.max_redirects = _MAX_REDIRECTS
    return session


def in_time(ask: Callable[[], T], still_waits: Callable[[], bool] = lambda: True) -> T:
    """Call `ask` in a thread and return its result; raise TimeoutError if it waits over `connect` + `silence` seconds.

    The client's own timeout limits only the silence between two bytes, so a server can evade it by sending a byte now
    and then. `still_waits` returns whether `ask` is waiting for a response rather than doing other work.
    """
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(ask())
        except BaseException as error:  # The calling thread raises the exception.
            result.set_exception(error)

    Thread(target=copy_context().run, args=(work,), daemon=True).start()
    try:
        while True:
            try:
                return result.result(timeout=limits().connect + limits().silence)
            except TimeoutError:
                if result.done():
                    return result.result()
                if still_waits():
                    raise TimeoutError("no response in time") from None
    finally:
        if not result.done():
            result.add_done_callback(_close_late)


def _close_late(result: Future[Any]) -> None:
    if result.exception() is None:
        getattr(result.result(), "close", lambda: None)()


def with_tries(what: str, attempt: Callable[[], T]) -> T:
    """Return the result of `attempt`; retry it after ConnectionError, at most `limits().tries` times in total."""
    last: Exception | None = None
    for n in range(limits().tries):
        if n:
            wait = getattr(last, "wait", None)
            pause = limits().pause * 2 ** (n - 1) if wait is None else wait
            time.sleep(min(pause, limits().longest_pause))
        try:
            return attempt()
        except ConnectionError as error:
            last = error
    times = f" ({limits().tries} tries)" if limits().tries > 1 else ""
    raise UnreachableError(f"{what}: {last}{times}; try again later, or use --offline for cached files") from last


def check_status(answer: Any, what: str) -> None:
    """Raise an exception if the status of a response is an error.

    Raises:
        ConnectionError: the status permits a retry; `.wait` is the server's Retry-After in seconds, if given.
        RefusedError: any other failure.
    """
    status = int(answer.status_code)
    if status < 400:
        return
    if status in _RETRIED:
        error = ConnectionError("too many requests (429)" if status == 429 else f"the server failed ({status})")
        after = answer.headers.get("retry-after", "")
        error.wait = float(after) if after.isdecimal() and len(after) < 9 else None  # type: ignore[attr-defined]
        raise error
    said = {401: "not signed in (401)", 403: "permission denied (403)", 404: "not found (404)"}
    raise RefusedError(f"{what}: {said.get(status, f'refused ({status})')}", status)


def whole_answer(
    method: str, url: str, what: str, *, headers: Mapping[str, str] | None = None,
    credentials: Credentials | None = None, data: bytes | None = None,
) -> bytes:  # fmt: skip
    """Send a request, and return the body of its response, which is limited in size and duration."""
    end = time.monotonic() + limits().end

    def attempt() -> bytes:
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        with open_url(method, url, headers=sent, credentials=credentials, data=data) as answer:
            check_status(answer, what)
            raw = bytearray()
            for piece in body_of(answer, MAX_ANSWER, what):
                raw += piece
                if time.monotonic() > end:
                    raise SourceError(f"{what}: no complete response after {limits().end:.0f} seconds; try again later")
            return bytes(raw)

    return with_tries(what, attempt)


def body_of(answer: Any, limit: int, what: str) -> Iterator[bytes]:
    """Yield the body of a response in pieces; raise ConnectionError if the transfer breaks off or is too slow."""
    import requests
    import urllib3

    if answer.headers.get("content-encoding", "identity") != "identity":
        raise SourceError(f"{what}: the server compressed its response, although we asked it not to; refused")
    n, pace = 0, Pace()
    while True:
        try:
            piece = answer.raw.read1(1 << 20, decode_content=False)
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
            raise ConnectionError(f"the server sent nothing for {limits().silence:.0f} seconds") from error
        except (urllib3.exceptions.HTTPError, requests.exceptions.RequestException, OSError) as error:
            raise ConnectionError("the connection was lost") from error
        if not piece:
            return
        n += len(piece)
        if n > limit:
            raise SourceError(f"{what}: the response exceeds its limit of {limit:,} bytes; stopped")
        pace.add(len(piece))
        yield piece


class Pace:
    """Monitor of the download rate; each average spans at least the permitted silence between two bytes."""

    def __init__(self) -> None:
        self.n, self.since = 0, time.monotonic()

    def add(self, n: int) -> None:
        """Add `n` received bytes; raise ConnectionError if the average rate is too low."""
        self.n += n
        passed = time.monotonic() - self.since
        if passed >= limits().silence:
            if self.n < limits().slowest * passed:
                raise ConnectionError(f"the server sends fewer than {limits().slowest:,.0f} bytes per second")
            self.n, self.since = 0, time.monotonic()


def _why(error: Exception) -> str:
    text = str(error).lower()
    if "refused" in text:
        return "connection refused"
    if "resolve" in text or "name or service" in text or "getaddrinfo" in text:
        return "the host name cannot be resolved"
    if "timed out" in text:
        return "no response in time"
    if "certificate" in text or "ssl" in text:
        return "the server's certificate was not accepted"
    return "the connection was lost"
