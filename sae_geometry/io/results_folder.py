"""Read a results folder that may be untrusted: only plain files of limited size, and no links."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import IO, Any

SUMMARY = "summary.json"
"""Name of a results folder's summary, which records every other file of the results."""

READY = ".sae-geometry-ready"
"""Name of the subfolder with complete new results that are being moved into the results folder file by file."""

PAGE = "explorer.html"
"""Name of the explorer page. It is added to finished results, so the record omits it; it has its own checksum."""

_MOST_JSON = 256 << 20  # maximum size of a JSON file in bytes; the summary of a thousand runs takes 2 MB
_MOST_NAME = 255  # maximum length of a file name in a record, in characters
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SEAL = "<!-- sha256 of the above: {} -->\n"


def open_inside(folder: Path, name: str) -> IO[bytes]:
    """Open a file of a results folder for reading.

    If a process was killed while it moved new results in, open the new file, moved or not.

    Args:
        folder: the results folder, which may itself be reached through a link.
        name: path of the file relative to `folder`, with "/" between its parts.

    Raises:
        ValueError: the file is a link, is reached through one, or is not a plain file.
    """
    return _opened(_root(folder, name), name)


def has(folder: Path, name: str) -> bool:
    """Return whether a results folder has an entry of this name."""
    return os.path.lexists(_root(folder, name) / name)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of a results folder.

    Raises:
        ValueError: the file is not a JSON object, is nested too deeply, or `open_inside` refuses it.
    """
    return _object(_root(folder, name), name)


def current_record(folder: Path) -> dict[str, str] | None:
    """Return the record of the results that a reader of this folder sees; None if there are none."""
    return record_in(_root(folder, SUMMARY))


def record_in(folder: Path) -> dict[str, str] | None:
    """Return the files, with their SHA-256, that the summary of a folder lists; None if there is no such summary.

    Results that are still to be moved are ignored. Since anyone can write a summary, verify the files with `is_ours`.
    """
    try:
        summary = _object(folder, SUMMARY)
    except (OSError, ValueError):
        return None
    files = summary.get("files")
    if "schema_version" in summary and isinstance(files, dict) and all(map(_is_entry, files, files.values())):
        return files
    return None


def listed_files(folder: Path) -> list[str]:
    """Return the names of the files that belong to the results in a folder: its summary and the files listed there.

    Other files, links, and results still to be moved into place are left out.
    """
    record = record_in(folder)
    if record is None:
        return []
    return [name for name in sorted([SUMMARY, *record]) if is_plain(folder, name)]


def manifest(folder: Path) -> dict[str, str]:
    """Return the name and SHA-256 of every file in a new results folder except the summary."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: _digest(folder / name) for name in names if name != SUMMARY}


def is_ours(folder: Path, name: str, digest: str) -> bool:
    """Return whether a file has the recorded SHA-256, is reached without a link, and has no holes.

    We write no holes, and hashing a sparse file of a few kilobytes could mean hashing terabytes.
    """
    return is_plain(folder, name) and not _has_hole(folder / name) and _digest(folder / name) == digest


def sealed(page: str) -> bytes:
    """Return a page with its checksum appended, by which `is_page` recognizes an unchanged page of ours."""
    raw = page.encode()
    return raw + _SEAL.format(hashlib.sha256(raw).hexdigest()).encode()


def is_page(folder: Path, name: str) -> bool:
    """Return whether a file is an unchanged explorer page that we added to results."""
    if name != PAGE or not is_plain(folder, name) or _has_hole(folder / name):
        return False
    with (folder / name).open("rb") as file:
        raw = file.read(_MOST_JSON)
    return raw == sealed(raw[: -len(_SEAL.format("0" * 64))].decode(errors="replace"))


def is_plain(folder: Path, name: str) -> bool:
    """Return whether a relative name is a plain file that is reached without links."""
    *above, last = name.split("/")
    path = folder
    for part in above:
        path /= part
        if not is_folder(path):
            return False
    try:
        return stat.S_ISREG((path / last).lstat().st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _root(folder: Path, name: str) -> Path:
    """Return the folder to read a file from: the subfolder `READY` if it holds the file, else `folder`."""
    return folder / READY if is_plain(folder, f"{READY}/{name}") else folder


def _opened(root: Path, name: str, most: int | None = None) -> IO[bytes]:
    path = root / name
    if not os.path.lexists(path):
        raise FileNotFoundError(f"{path} does not exist")
    if not is_plain(root, name):
        raise ValueError(f"{path} is a link or not a plain file; results are read only from plain files")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    size = os.fstat(file.fileno()).st_size
    if most is not None and size > most:
        file.close()
        raise ValueError(f"{path} has {size:,} bytes; expected at most {most:,}")
    return file


def _object(root: Path, name: str) -> dict[str, Any]:
    with _opened(root, name, _MOST_JSON) as file:
        raw = file.read()
    try:
        found = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{root / name} is not JSON; regenerate the results") from error
    if not isinstance(found, dict):
        raise ValueError(f"{root / name} does not hold a JSON object; regenerate the results")
    return found


def _is_entry(name: object, digest: object) -> bool:
    if not isinstance(name, str) or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return False
    parts = name.split("/")
    plain = all(0 < len(part) <= _MOST_NAME and part not in (".", "..") for part in parts)
    return plain and len(parts) <= 4 and not set(name) & set("\\\0:")


def _has_hole(path: Path) -> bool:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return size > 0 and os.lseek(file.fileno(), 0, os.SEEK_HOLE) < size
        except (AttributeError, OSError):  # Not every system reports holes.
            return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
