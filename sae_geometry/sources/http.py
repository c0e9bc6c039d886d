"""One HTTP request, bounded: time, size, tries and redirects; credentials for the host they are for and no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from sae_geometry.io.redaction import without_secrets
from sae_geometry.sources.errors import SourceError

_MAX_REDIRECTS = 5
_MAX_ANSWER = 128 << 20
_RETRIED = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Limits:
    """Attributes:
    connect: seconds to connect.
    silence: seconds without a byte.
    tries: how often a request is made before giving up.
    pause: seconds before the second try, doubled before the third.
    longest_pause: seconds that a server's Retry-After is honoured for.
    """

    connect: float = 10.0
    silence: float = 60.0
    tries: int = 3
    pause: float = 1.0
    longest_pause: float = 20.0


_current = Limits()


def limits() -> Limits:
    """The limits in force."""
    return _current


def set_limits(new: Limits) -> None:
    """Put other limits in force, for slow lines and for tests."""
    global _current
    _current = new


@dataclass(frozen=True)
class Credentials:
    """An Authorization header and the one origin it may be sent to."""

    origin: str
    header: str

    def headers_for(self, url: str) -> dict[str, str]:
        """The header, if `url` is at the origin."""
        return {"Authorization": self.header} if origin_of(url) == self.origin else {}

    def __repr__(self) -> str:
        return f"Credentials(origin={self.origin!r})"


class RefusedError(SourceError):
    """The server said no, and will say it again: 401, 403, 404 and the like."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(SourceError):
    """No answer, or none in time, after every try."""


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, spelled in one way."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


@contextmanager
def open_url(
    method: str, url: str, *, headers: Mapping[str, str], credentials: Credentials | None, data: bytes | None = None
) -> Iterator[Any]:
    """The answer to one request, its body not yet read, redirects followed without handing credentials on.

    Raises:
        ConnectionError: no answer, or none in time.
        SourceError: a redirect that cannot be followed.
    """
    import requests

    with requests.Session() as session:
        for _ in range(_MAX_REDIRECTS + 1):
            sent = {**headers, **(credentials.headers_for(url) if credentials else {})}
            try:
                answer = session.request(
                    method, url, headers=sent, data=data, stream=True, allow_redirects=False, auth=lambda r: r,
                    timeout=(limits().connect, limits().silence),
                )  # fmt: skip
            except requests.exceptions.Timeout as error:
                raise ConnectionError("no answer in time") from error
            except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                raise ConnectionError(_why(error)) from error
            except (requests.exceptions.RequestException, ValueError) as error:
                raise SourceError(
                    f"{origin_of(url)}: the request could not be made ({type(error).__name__})"
                ) from error
            if not answer.is_redirect:
                try:
                    yield answer
                finally:
                    answer.close()
                return
            answer.close()
            try:
                target = urljoin(url, answer.headers["location"])
                urlsplit(target)
            except ValueError:
                raise SourceError(f"{origin_of(url)} redirects to what is not a URL; refused") from None
            if urlsplit(target).scheme not in {"http", "https"} or (
                urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http"
            ):
                raise SourceError(
                    f"{origin_of(url)} redirects to {without_secrets(target.partition('?')[0])[:120]!r}; refused"
                )
            url = target
            if answer.status_code == 303:
                method, data = "GET", None
        raise SourceError(f"{origin_of(url)} redirects in a circle")


def with_tries(what: str, attempt: Callable[[], Any]) -> Any:
    """The result of `attempt`, made again after `ConnectionError`, at most `limits().tries` times.

    Raises:
        UnreachableError: every try failed.
    """
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
    raise UnreachableError(f"{what}: {last}{times}; try again later, or --offline for what is cached") from last


def check_status(answer: Any, what: str) -> None:
    """Raise for an answer that is not a success.

    Raises:
        ConnectionError: a status worth another try; `.wait` is the server's Retry-After, if it gave one.
        RefusedError: any other failure.
    """
    status = int(answer.status_code)
    if status < 400:
        return
    if status in _RETRIED:
        error = ConnectionError("too many requests (429)" if status == 429 else f"the server failed ({status})")
        after = answer.headers.get("retry-after", "")
        error.wait = float(after) if after.isdigit() else None  # type: ignore[attr-defined]
        raise error
    said = {401: "not signed in (401)", 403: "permission denied (403)", 404: "not found (404)"}
    raise RefusedError(f"{what}: {said.get(status, f'refused ({status})')}", status)


def post_json(url: str, body: Any, what: str, credentials: Credentials | None = None) -> Any:
    """The JSON answer to a JSON question.

    Raises:
        RefusedError, UnreachableError: as their names say.
        SourceError: an answer that is not JSON or is absurdly long.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}

    def attempt() -> bytes:
        with open_url("POST", url, headers=headers, credentials=credentials, data=json.dumps(body).encode()) as answer:
            check_status(answer, what)
            return b"".join(body_of(answer, _MAX_ANSWER, what, decode=True))

    raw = with_tries(what, attempt)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        kind = "a web page" if raw.lstrip()[:1] == b"<" else "not JSON"
        raise SourceError(f"{what}: {origin_of(url)} answered with {kind}; is WANDB_BASE_URL right?") from error


def body_of(answer: Any, limit: int, what: str, *, decode: bool = False) -> Iterator[bytes]:
    """The body in pieces, never more than `limit` bytes of it.

    Raises:
        ConnectionError: it broke off.
        SourceError: it goes on beyond the limit.
    """
    import requests
    import urllib3

    n = 0
    try:
        for piece in answer.raw.stream(1 << 20, decode_content=decode):
            n += len(piece)
            if n > limit:
                raise SourceError(f"{what}: the server sends more than {limit:,} bytes, more than it should; stopped")
            yield piece
    except (urllib3.exceptions.ReadTimeoutError, TimeoutError) as error:
        raise ConnectionError(f"silent for {limits().silence:.0f} seconds") from error
    except (urllib3.exceptions.HTTPError, requests.exceptions.RequestException, OSError) as error:
        raise ConnectionError("the connection broke off") from error


def _why(error: Exception) -> str:
    text = str(error).lower()
    if "refused" in text:
        return "connection refused"
    if "resolve" in text or "name or service" in text or "getaddrinfo" in text:
        return "the host's name cannot be resolved"
    if "timed out" in text:
        return "no answer in time"
    if "certificate" in text or "ssl" in text:
        return "its certificate was not accepted"
    return "the connection broke off"
