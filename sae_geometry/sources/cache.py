"""The cache of downloaded runs: its location, its contents, and safe file names.

    $SAE_GEOMETRY_CACHE, else the user's cache folder
      .sae-geometry-cache                      paths of the files that this package wrote; no other file is removed
      wandb/<host>/<entity>/<project>/<run>/   checkpoints, with wandb_run.json
      huggingface/                             file lists and single tensors, by commit
      neuronpedia/                             exports
      verified/                                checksums of verified files
      .partial/                                partial downloads, resumed if the server supports it
      .locks/                                  a lock file per download (two processes never fetch the same file) and
                                               per folder with the unfinished work of a command

Hugging Face files stay in Hugging Face's own cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.kernels.settings import current
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.plain import parse_json

_MARKER = ".sae-geometry-cache"
_LONGEST_REF = 1000  # maximum size in bytes; a commit hash has 40
_RUN_DEPTH = 5  # number of parts of wandb/<host>/<entity>/<project>/<run>
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class CachedRun:
    """A run in the cache, with the names and the total size of its files."""

    address: str
    folder: Path
    files: tuple[str, ...]
    n_bytes: int


def cache_root() -> Path:
    """Return the path of the cache folder, from the settings, `$SAE_GEOMETRY_CACHE`, or the user's default."""
    if (chosen := current().cache) is not None:
        return chosen
    if given := os.environ.get("SAE_GEOMETRY_CACHE"):
        return Path(os.path.expanduser(given)).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("sae-geometry"))


@contextmanager
def holding(target: Path, *, seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on a file or folder; wait for the lock at most `seconds`.

    Raises:
        filelock.Timeout: another process still holds the lock.
        OSError: the cache is not writable.
    """
    import filelock

    locks = cache_root() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    wrote(target)
    with filelock.FileLock(locks / hashlib.sha256(os.fsencode(target)).hexdigest()[:32], timeout=seconds):
        yield


def safe_path(name: str) -> Path:
    """Convert a file name from a server to a relative path; raise SourceError if it is unsafe."""
    parts = name.replace("\\", "/").split("/")
    for part in parts:
        if (
            part in {"", ".", ".."}
            or not part.isprintable()
            or len(part.encode()) > 200
            or any(c in '<>:"|?*' for c in part)
            or part.endswith((" ", "."))
            or _RESERVED.fullmatch(part)
        ):
            raise SourceError(f"a file is named {name[:120]!a}, which is not a plain relative path; refused")
    return Path(*parts)


def commit_of(folder: Path, revision: str) -> str | None:
    """Return the commit of a branch or tag in a Hugging Face cache folder (models--org--repo), if recorded."""
    try:
        path = folder / "refs" / safe_path(revision)
        if not path.is_file() or path.stat().st_size > _LONGEST_REF:  # Reading a pipe would never end.
            return None
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def wrote(path: Path) -> None:
    """Record a file that is about to be written; `clear_cache` removes only recorded files."""
    root = cache_root()
    if path.is_relative_to(root) and not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        # The marker may have been replaced by a link, which must not be followed, or a pipe, which would block.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(root / _MARKER, flags, 0o666), "ab") as marker:
            line = json.dumps(path.relative_to(root).as_posix()).encode() + b"\n"
            marker.write(line)  # A single write keeps the lines of concurrent processes apart.


def cached_runs() -> tuple[CachedRun, ...]:
    """Return every run in the cache."""
    runs: dict[Path, list[Path]] = {}
    for path in _ours():
        parts = path.relative_to(cache_root()).parts
        if parts[0] == "wandb" and len(parts) > _RUN_DEPTH and path.is_file():
            runs.setdefault(cache_root().joinpath(*parts[:_RUN_DEPTH]), []).append(path)
    found = []
    for folder, files in sorted(runs.items()):
        names = tuple(p.relative_to(folder).as_posix() for p in sorted(files))
        address = "wandb:" + "/".join(folder.relative_to(cache_root()).parts[2:]).replace("@", ":")
        found.append(CachedRun(address, folder, names, sum(p.stat().st_size for p in files)))
    return tuple(found)


def partial_bytes() -> int:
    """Return the total size of all partial downloads, in bytes."""
    waiting = cache_root() / ".partial"
    return sum(p.stat().st_size for p in _ours() if p.is_relative_to(waiting) and p.is_file())


def to_clear(run: str | None = None) -> tuple[Path, ...]:
    """Return the files that `clear_cache` would remove, and any links that have replaced recorded folders."""
    if run is None:
        return _ours()
    wanted = run.removeprefix("wandb:").partition("#")[0]
    folders = [r.folder for r in cached_runs() if r.address == f"wandb:{wanted}"]
    if not folders:
        raise SourceError(f"the cache does not contain run {wanted!r}; `sae-geometry cache` lists the cached runs")
    return tuple(path for path in _ours() if any(path.is_relative_to(folder) for folder in folders))


def clear_cache(run: str | None = None) -> int:
    """Remove one run ("entity/project/run" or its address) or, by default, all files that we wrote to the cache.

    Links are removed but not followed, and files from other programs stay.

    Returns:
        The number of bytes freed.
    """
    freed = 0
    for path in to_clear(run):
        freed += 0 if path.is_symlink() else path.stat().st_size
        path.unlink()
        with suppress(OSError):  # rmdir raises for a folder that is not empty.
            for above in path.parents[: path.parents.index(cache_root())]:
                above.rmdir()
    if run is None:
        (cache_root() / _MARKER).unlink(missing_ok=True)
    return freed


def _ours() -> tuple[Path, ...]:
    """Return the recorded files that exist; if a link has replaced a file or one of its folders, return the link."""
    root = cache_root()
    marker = root / _MARKER
    found: dict[Path, None] = {}
    try:
        lines = marker.read_bytes().splitlines() if marker.is_file() else []
    except OSError:
        return ()
    for line in lines:
        with suppress(ValueError, SourceError):  # A killed process may leave an incomplete line.
            path = root
            for part in safe_path(str(parse_json(line))).parts:
                path /= part
                if path.is_symlink() or path.is_file():
                    found[path] = None
                    break
    return tuple(sorted(found))
