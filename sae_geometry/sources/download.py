"""Bringing one file to its place: whole and verified, or not at all.

A file is written to a partial one, continued from there if a try breaks off, and renamed only when its size and its
checksum are right and it opens. A lock keeps two processes from fetching the same file.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.sources.bundle import Progress
from sae_geometry.sources.cache import cache_root, holding
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import Credentials, body_of, check_status, open_url, with_tries

_LOCK_SECONDS = 3600.0
_UNKNOWN_SIZE_LIMIT = 1 << 40


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        name: its name where it comes from.
        url: where its bytes are.
        n_bytes: its size; None when not told.
        md5: base64 of its MD5; None when not told.
    """

    name: str
    url: str
    n_bytes: int | None
    md5: str | None


def fetch_file(
    remote: RemoteFile,
    target: Path,
    *,
    credentials: Credentials | None = None,
    check: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
) -> bool:
    """Bring a file to `target`; False if it was there already.

    Args:
        remote: what to fetch.
        target: where it goes; not touched unless all is well.
        credentials: sent to their own origin only.
        check: called with the partial file before it is renamed; raises if the file is not what it should be.
        progress: called with the file's name and the share done, where the size is known.

    Raises:
        SourceError: it cannot be had whole; `target` is as before.
    """
    with locked(target):
        if target.exists() and remote.n_bytes in (None, target.stat().st_size):
            return False
        partial = _partial_for(remote, target)
        try:
            _check_space(remote, partial)
            with_tries(f"fetching {remote.name}", lambda: _one_try(remote, partial, credentials, progress))
            _verify(remote, partial)
            if check is not None:
                check(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, target)
        except BaseException as error:
            if not _worth_keeping(error, remote):
                partial.unlink(missing_ok=True)
            raise
        finally:
            _remove_if_empty(partial.parent)
    return True


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Only one process at a time per target.

    Raises:
        SourceError: another process holds it for an hour.
    """
    import filelock

    with ExitStack() as held:
        try:
            held.enter_context(holding(target, seconds=_LOCK_SECONDS))
        except filelock.Timeout as error:
            raise SourceError(
                f"another process has been fetching {target.name} for an hour; stop it and try again"
            ) from error
        except OSError as error:
            raise SourceError(
                f"the cache {cache_root()} cannot be written: {error.strerror}; set SAE_GEOMETRY_CACHE"
            ) from error
        yield


def _partial_for(remote: RemoteFile, target: Path) -> Path:
    identity = hashlib.sha256(f"{target}\n{remote.n_bytes}\n{remote.md5}".encode()).hexdigest()[:32]
    return cache_root() / ".partial" / identity / target.name


def _one_try(remote: RemoteFile, partial: Path, credentials: Credentials | None, progress: Progress | None) -> None:
    partial.parent.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    if have and (remote.md5 is None or remote.n_bytes is None or have >= remote.n_bytes):
        partial.unlink()  # a stray start of an unknown file cannot be continued
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    what = f"fetching {remote.name}"
    with open_url("GET", remote.url, headers=headers, credentials=credentials) as answer:
        if answer.status_code == 416:
            partial.unlink(missing_ok=True)
            raise ConnectionError("the server would not continue")
        check_status(answer, what)
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise SourceError(f"{what}: the server compressed it, though asked not to; refused")
        if answer.status_code != 206:
            have = 0
        elif not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
            partial.unlink(missing_ok=True)
            raise ConnectionError("the server continued at the wrong place")
        length = answer.headers.get("content-length", "")
        limit = (remote.n_bytes if remote.n_bytes is not None else _UNKNOWN_SIZE_LIMIT) - have
        n = 0
        with _room_for(what), partial.open("ab" if have else "wb") as f:
            for piece in body_of(answer, limit, what):
                f.write(piece)
                n += len(piece)
                if progress is not None and remote.n_bytes:
                    progress(remote.name, (have + n) / remote.n_bytes)
        expected = int(length) if length.isdigit() else limit if remote.n_bytes is not None else n
        if n < expected:
            raise ConnectionError(f"the connection broke off after {have + n:,} of {have + expected:,} bytes")


@contextmanager
def _room_for(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SourceError(
            f"{what}: {str(error.strerror).lower()} in the cache {cache_root()}; make room, or set SAE_GEOMETRY_CACHE "
            "to another disk"
        ) from error


def _verify(remote: RemoteFile, partial: Path) -> None:
    size = partial.stat().st_size
    if remote.n_bytes is not None and size != remote.n_bytes:
        raise SourceError(f"{remote.name} arrived with {size:,} bytes instead of {remote.n_bytes:,}; not kept")
    if remote.md5 is None:
        return
    with partial.open("rb") as f:
        digest = hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).digest()
    if base64.b64encode(digest).decode() != remote.md5:
        raise SourceError(
            f"{remote.name} arrived damaged: its MD5 is not the one W&B recorded; not kept, fetch it again"
        )


def _check_space(remote: RemoteFile, partial: Path) -> None:
    root = next(p for p in partial.parents if p.exists())
    free = shutil.disk_usage(root).free
    if remote.n_bytes is not None and remote.n_bytes > free:
        raise SourceError(
            f"{remote.name} needs {remote.n_bytes:,} bytes and {free:,} are free at {root}; make room, or set "
            "SAE_GEOMETRY_CACHE to another disk"
        )


def _worth_keeping(error: BaseException, remote: RemoteFile) -> bool:
    """A download that broke off is kept to be continued; one that was wrong, refused or stopped is not."""
    from sae_geometry.sources.http import UnreachableError

    return isinstance(error, UnreachableError) and remote.md5 is not None and remote.n_bytes is not None


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
