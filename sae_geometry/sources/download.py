"""Download files; each is complete and verified, or absent.

Bytes go to a partial file, which is resumed after a lost connection and is renamed only once its size, checksum and
contents are verified. A lock prevents two processes from downloading the same file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.sources.bundle import Context, Progress
from sae_geometry.sources.cache import cache_root, holding, safe_path, wrote
from sae_geometry.sources.checksums import checksum, intact
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.http import Credentials, UnreachableError, body_of, check_status, open_url, with_tries

_LOCK_SECONDS = 3600.0
_UNKNOWN_SIZE_LIMIT = 1 << 36


@dataclass(frozen=True)
class RemoteFile:
    """A file to download; size and hexadecimal MD5 are None if the server does not state them."""

    name: str
    url: str
    n_bytes: int | None
    md5: str | None


def fetch_file(
    remote: RemoteFile,
    target: Path,
    *,
    recorded: str | None = None,
    again: bool = False,
    credentials: Credentials | None = None,
    check: Callable[[Path], object] | None = None,
    progress: Progress | None = None,
) -> str:
    """Download a file to `target` unless it is there and intact; return the MD5 from the server, or else the SHA-256.

    Args:
        target: path of the downloaded file; unchanged unless the download succeeds.
        recorded: checksum that this function returned for the previous download.
        check: called with the partial file before it is renamed; it must raise an exception if the content is invalid.
    """
    with locked(target):
        expected = remote.md5 or recorded
        if not again and expected is not None and target.is_file() and intact(target, expected):
            return expected
        if target.is_dir():
            raise SourceError(f"{target} is a folder, not a cached file; remove it, or set SAE_GEOMETRY_CACHE")
        partial = _partial_for(remote, target)
        try:
            _check_space(remote, partial)
            with_tries(f"fetching {remote.name}", lambda: _one_try(remote, partial, credentials, progress))
            found = _verified(remote, partial)
            if check is not None:
                check(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, target)
        except BaseException as error:
            if not _worth_keeping(error, remote):
                partial.unlink(missing_ok=True)
            raise
        finally:
            with suppress(OSError):  # rmdir raises for a folder that is not empty.
                partial.parent.rmdir()
    return found


def in_cache(folder: Path, names: Sequence[str], sums: Mapping[str, str], context: Context, address: str) -> bool:
    """Return whether all files are in the cache with the checksums in `sums`, which `fetch_file` returned."""
    if context.again == "all" and not context.offline:
        return False
    paths = {name: folder / safe_path(name) for name in names}
    if not all(name in sums and path.is_file() for name, path in paths.items()):
        return False
    damaged = next((name for name, path in paths.items() if not intact(path, sums[name])), None)
    if damaged is not None and (context.offline or context.again == "none"):
        raise SourceError(
            f"{paths[damaged]} is damaged: its checksum has changed since the download; run "
            f"`sae-geometry fetch {address}#{damaged}` to replace it"
        )
    return damaged is None


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock on a target, so that only one process at a time downloads it."""
    import filelock

    with ExitStack() as held:
        try:
            held.enter_context(holding(target, seconds=_LOCK_SECONDS))
        except filelock.Timeout as error:
            raise SourceError(
                f"another process has been fetching {target.name} for an hour; stop that process and try again"
            ) from error
        except OSError as error:
            raise SourceError(
                f"the cache {cache_root()} is not writable: {error.strerror}; set SAE_GEOMETRY_CACHE to another folder"
            ) from error
        yield


def _partial_for(remote: RemoteFile, target: Path) -> Path:
    identity = hashlib.sha256(f"{target}\n{remote.n_bytes}\n{remote.md5}".encode()).hexdigest()[:32]
    return cache_root() / ".partial" / identity / target.name


def _one_try(remote: RemoteFile, partial: Path, credentials: Credentials | None, progress: Progress | None) -> None:
    wrote(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.is_symlink():
        partial.unlink()
    have = partial.stat().st_size if partial.exists() else 0
    if have and (remote.md5 is None or remote.n_bytes is None or have >= remote.n_bytes):
        partial.unlink()  # Without size and MD5, a changed file would go unnoticed.
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    what = f"fetching {remote.name}"
    with open_url("GET", remote.url, headers=headers, credentials=credentials) as answer:
        if answer.status_code == 416:
            partial.unlink(missing_ok=True)
            raise ConnectionError("the server refused to resume the download")
        check_status(answer, what)
        if answer.status_code != 206:
            have = 0
        elif not answer.headers.get("content-range", "").startswith(f"bytes {have}-"):
            partial.unlink(missing_ok=True)
            raise ConnectionError("the server resumed the download at the wrong byte")
        length = answer.headers.get("content-length", "")
        limit = (remote.n_bytes if remote.n_bytes is not None else _UNKNOWN_SIZE_LIMIT) - have
        n = 0
        try:
            with open(partial, "ab" if have else "wb", opener=_no_link) as f:
                for piece in body_of(answer, limit, what):
                    f.write(piece)
                    n += len(piece)
                    if progress is not None and remote.n_bytes:
                        progress(remote.name, (have + n) / remote.n_bytes)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SourceError(
                f"{what}: {str(error.strerror).lower()} in the cache {cache_root()}; free some space, or set "
                "SAE_GEOMETRY_CACHE to another disk"
            ) from error
        promised = int(length) if length.isdecimal() and len(length) < 20 else None
        expected = promised if promised is not None else limit if remote.n_bytes is not None else n
        if n < expected:
            raise ConnectionError(f"the connection was lost after {have + n:,} of {have + expected:,} bytes")


def _no_link(path: str, flags: int) -> int:
    """Open a file, but refuse a link, since others could place a link at this predictable path."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _verified(remote: RemoteFile, partial: Path) -> str:
    size = partial.stat().st_size
    if remote.n_bytes is not None and size != remote.n_bytes:
        raise SourceError(f"{remote.name} arrived with {size:,} bytes instead of {remote.n_bytes:,}; it was discarded")
    if remote.md5 is None:
        return checksum(partial)
    if checksum(partial, like=remote.md5) != remote.md5:
        raise SourceError(
            f"{remote.name} arrived damaged and was discarded: its MD5 is not the server's; fetch the file again"
        )
    return remote.md5


def _check_space(remote: RemoteFile, partial: Path) -> None:
    root = next(p for p in partial.parents if p.exists())
    free = shutil.disk_usage(root).free
    if remote.n_bytes is not None and remote.n_bytes > free:
        raise SourceError(
            f"{remote.name} needs {remote.n_bytes:,} bytes, but only {free:,} are free at {root}; free some space, or "
            "set SAE_GEOMETRY_CACHE to another disk"
        )


def _worth_keeping(error: BaseException, remote: RemoteFile) -> bool:
    """Return whether a partial download can be resumed: the connection failed, and size and MD5 are known."""
    return isinstance(error, UnreachableError) and remote.md5 is not None and remote.n_bytes is not None
