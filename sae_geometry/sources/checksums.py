"""Verify cached files against recorded checksums.

Hashing a checkpoint takes about as long as reading its values, so a file is rehashed only if its size, times, inode or
device has changed. Unlike the modification time, the time of the last status change (ctime) cannot be set back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sae_geometry.io.atomic_folder import whole_file
from sae_geometry.sources.cache import cache_root, wrote
from sae_geometry.sources.plain import parse_json

_SHA1, _SHA256 = 40, 64
_SEAL = "sha256 of the rest"
_MAX_BYTES = 32 << 20  # maximum size of a record


def checksum(path: Path, *, like: str = "0" * _SHA256) -> str:
    """Return the hexadecimal MD5, git blob SHA-1 or SHA-256 of a file, whichever is as long as `like`."""
    with path.open("rb") as f:
        if len(like) == _SHA256:
            return hashlib.file_digest(f, "sha256").hexdigest()
        header = f"blob {path.stat().st_size}\0".encode() if len(like) == _SHA1 else b""
        kind: Any = hashlib.sha1 if len(like) == _SHA1 else hashlib.md5
        return hashlib.file_digest(f, lambda: kind(header, usedforsecurity=False)).hexdigest()


def intact(path: Path, recorded: str) -> bool:
    """Return whether a file has the recorded checksum; hash the file only if it changed since the last check."""
    marker = cache_root() / "verified" / hashlib.sha256(str(path.absolute()).encode(errors="replace")).hexdigest()[:32]
    state = path.stat()
    line = f"{recorded} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino} {state.st_dev}"
    with suppress(OSError, ValueError):
        if marker.read_text(encoding="utf-8") == line:
            return True
    if checksum(path, like=recorded) != recorded:
        return False
    with suppress(OSError):  # If the cache is not writable, hash the file every time.
        wrote(marker)
        with whole_file(marker, ".half-") as file:
            file.write(line.encode())
    return True


def write_sealed(path: Path, table: Mapping[str, Any]) -> None:
    """Write a mapping to the cache as JSON that includes a checksum of its contents."""
    wrote(path)
    with whole_file(path, ".half-") as file:
        file.write(json.dumps({**table, _SEAL: _seal(parse_json(json.dumps(table)))}).encode())


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return the mapping in a JSON file; None if the file is missing, too large, invalid, or has a wrong checksum."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        table = parse_json(path.read_text(encoding="utf-8"))
        rest = {key: value for key, value in table.items() if key != _SEAL}
    except (OSError, ValueError, AttributeError):
        return None
    return rest if _SEAL not in table or table[_SEAL] == _seal(rest) else None


def _seal(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
