"""The cache of fetched runs: where it is, what is in it, and names that cannot lead out of it.

    $SAE_GEOMETRY_CACHE, else the user's cache folder
      wandb/<host>/<entity>/<project>/<run>/   checkpoints, with wandb_run.json beside them
      huggingface/, verified/                  which files a commit has, and which blobs were checked
      .partial/                                downloads on their way; resumed where the server can
      .locks/                                  one file a download, so that two processes do not fetch the same, and
                                           one a folder in which a command keeps unfinished work

Hugging Face files stay in Hugging Face's own cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.sources.errors import SourceError

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
            or len(part.encode()) > 200
            or any(ord(c) < 32 or c in '<>:"|?*\x7f' for c in part)
            or part.endswith((" ", "."))
            or _RESERVED.fullmatch(part)
        ):
            raise SourceError(f"a file is named {name[:120]!r}, which is not a plain relative path; refused")
    return Path(*parts)


def run_folder(host: str, run: str) -> Path:
    """Where the files of one W&B run are kept."""
    return cache_root() / "wandb" / safe_path(re.sub(r"[^\w.\-]", "_", host)) / safe_path(run)


def cached_runs() -> tuple[CachedRun, ...]:
    """Every run in the cache."""
    root = cache_root() / "wandb"
    found = []
    for folder in sorted(p for p in root.glob("*/*/*/*") if p.is_dir()):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = tuple(p.relative_to(folder).as_posix() for p in files)
        address = "wandb:" + "/".join(folder.relative_to(root).parts[1:])
        found.append(CachedRun(address, folder, names, sum(p.stat().st_size for p in files)))
    return tuple(found)


def partial_bytes() -> int:
    """Bytes of downloads on their way or given up."""
    return sum(p.stat().st_size for p in (cache_root() / ".partial").rglob("*") if p.is_file())


def clear_cache(run: str | None = None) -> int:
    """Remove one run ("entity/project/run", or its address) from the cache, or everything; returns the bytes freed.

    Raises:
        SourceError: no such run in the cache.
    """
    runs = cached_runs()
    if run is not None:
        wanted = run.removeprefix("wandb:").partition("#")[0]
        runs = tuple(r for r in runs if r.address == f"wandb:{wanted}")
        if not runs:
            raise SourceError(f"the cache holds no run {wanted!r}; `sae-geometry cache` lists what it holds")
    freed = sum(r.n_bytes for r in runs)
    for r in runs:
        shutil.rmtree(r.folder)
    if run is None:
        freed += partial_bytes()
        for name in ("wandb", "huggingface", "verified", ".partial"):
            shutil.rmtree(cache_root() / name, ignore_errors=True)
    return freed
