"""The cache of fetched runs: where it is, what is in it, and names that cannot lead out of it.

    $SAE_GEOMETRY_CACHE, else the user's cache folder
      .sae-geometry-cache                      what we wrote, a path a line: nothing else is ever removed
      wandb/<host>/<entity>/<project>/<run>/   checkpoints, with wandb_run.json beside them
      huggingface/, verified/                  which files a commit has, and which blobs were checked
      .partial/                                downloads on their way; resumed where the server can
      .locks/                                  one file a download, so that two processes do not fetch the same, and
                                           one a folder in which a command keeps unfinished work

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

from sae_geometry.sources.errors import SourceError

_MARKER = ".sae-geometry-cache"
_RUN_DEPTH = 5  # wandb/<host>/<entity>/<project>/<run>
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class CachedRun:
    """One run in the cache."""

    address: str
    folder: Path
    files: tuple[str, ...]
    n_bytes: int


def cache_root() -> Path:
    """`$SAE_GEOMETRY_CACHE`, or the user's cache folder for this package. Not created by asking."""
    given = os.environ.get("SAE_GEOMETRY_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("sae-geometry"))


@contextmanager
def holding(target: Path, *, seconds: float) -> Iterator[None]:
    """Hold the lock of a file or folder, which one process has at a time; wait for it so long.

    Raises:
        filelock.Timeout: another process has it.
        OSError: the cache cannot be written.
    """
    import filelock

    locks = cache_root() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    wrote(target)
    with filelock.FileLock(locks / hashlib.sha256(os.fsencode(target)).hexdigest()[:32], timeout=seconds):
        yield


def safe_path(name: str) -> Path:
    """A file name from elsewhere as a relative path that stays below wherever it is put.

    Raises:
        SourceError: a name that is absolute, leads upwards, or no file system should see.
    """
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
    """The commit that a folder of Hugging Face's cache (models--org--repo) names for a branch or tag, if it does."""
    try:
        return (folder / "refs" / safe_path(revision)).read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def run_folder(host: str, run: str) -> Path:
    """Where the files of one W&B run are kept, or of one version of an artifact (NAME:v3, in a folder NAME@v3)."""
    return cache_root() / "wandb" / safe_path(re.sub(r"[^\w.\-]", "_", host)) / safe_path(run.replace(":", "@"))


def wrote(path: Path) -> None:
    """Note that a file in the cache is ours, before it is written: `clear_cache` removes what is noted, nothing else.

    Raises:
        OSError: the cache cannot be written.
    """
    root = cache_root()
    if path.is_relative_to(root) and not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with (root / _MARKER).open("ab") as marker:  # one write, so that processes do not mix their lines
            marker.write(json.dumps(path.relative_to(root).as_posix()).encode() + b"\n")


def cached_runs() -> tuple[CachedRun, ...]:
    """Every run in the cache."""
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
    """Bytes of downloads on their way or given up."""
    waiting = cache_root() / ".partial"
    return sum(p.stat().st_size for p in _ours() if p.is_relative_to(waiting) and p.is_file())


def to_clear(run: str | None = None) -> tuple[Path, ...]:
    """Return the files that `clear_cache` would remove, and links that stand in the place of folders of ours.

    Raises:
        SourceError: no such run in the cache.
    """
    if run is None:
        return _ours()
    wanted = run.removeprefix("wandb:").partition("#")[0]
    folders = [r.folder for r in cached_runs() if r.address == f"wandb:{wanted}"]
    if not folders:
        raise SourceError(f"the cache holds no run {wanted!r}; `sae-geometry cache` lists what it holds")
    return tuple(path for path in _ours() if any(path.is_relative_to(folder) for folder in folders))


def clear_cache(run: str | None = None) -> int:
    """Remove one run ("entity/project/run", or its address) from the cache, or everything that we wrote there.

    Links are removed and not followed; files that others put there stay.

    Returns:
        The bytes freed.

    Raises:
        SourceError: no such run in the cache.
    """
    freed = 0
    for path in to_clear(run):
        freed += 0 if path.is_symlink() else path.stat().st_size
        path.unlink()
        for above in path.parents:
            if above == cache_root() or _not_removed(above):
                break
    if run is None:
        (cache_root() / _MARKER).unlink(missing_ok=True)
    return freed


def _ours() -> tuple[Path, ...]:
    """The files that are noted and there; of those behind a link, the link."""
    root = cache_root()
    found: dict[Path, None] = {}
    try:
        lines = (root / _MARKER).read_bytes().splitlines()
    except OSError:
        return ()
    for line in lines:
        with suppress(ValueError, SourceError):  # half a line, of a process that was killed
            path = root
            for part in safe_path(str(json.loads(line))).parts:
                path /= part
                if path.is_symlink() or path.is_file():
                    found[path] = None
                    break
    return tuple(sorted(found))


def _not_removed(folder: Path) -> bool:
    """Remove a folder if it is empty; whether it stays."""
    try:
        folder.rmdir()
    except OSError:
        return True
    return False
