"""Write a results folder atomically: even if the process is killed, the folder is either unchanged or complete.

New results are written to a separate folder. One system call puts them in place: a rename if the target is absent, an
*exchange* of the two folders if it holds only earlier results. In a folder that has other files or cannot be replaced
(a mount, the current folder, one whose parent is not writable), files are moved one by one: readers see the new results
as soon as they are complete (`results_folder.READY`), and the next writer finishes an interrupted move. Only files
listed in the record of the earlier results, and their explorer page, are removed, and only if they are unchanged.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sae_geometry.io.results_folder import (
    PAGE,
    READY,
    SUMMARY,
    current_record,
    is_folder,
    is_ours,
    is_page,
    is_plain,
    record_in,
)

_ASIDE = ".sae-geometry-partial-"  # prefix of folders being written and of folders replaced by an exchange
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2  # constants of Linux (first two) and macOS


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Check that a folder is a valid target for results, before any work is done and without changing anything.

    Raises:
        FileExistsError: the path is a file or lies below one, the folder is not empty and `overwrite` is not set, or
            `overwrite` is set but the folder holds no results that this package wrote.
    """
    above = next((p for p in [folder, *folder.parents] if p.exists()), None)
    if above is not None and not above.is_dir():
        raise FileExistsError(f"{above} is a file, not a folder; give another folder with -o")
    if above is not None:
        check_writable(above)
    if above != folder or all(path.name.startswith(_ASIDE) for path in folder.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{folder} is not empty; give another folder with -o, or --overwrite to replace it")
    if current_record(folder) is None:
        raise FileExistsError(
            f"{folder} holds no results of this package (it has no summary that lists them), so --overwrite does not "
            "replace it; give another folder with -o"
        )


def check_writable(folder: Path, instead: str = "folder") -> None:
    """Raise PermissionError if a folder is not writable; the message says to give another `instead` with -o."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"is not writable; give another {instead} with -o", str(folder))


@contextmanager
def fresh_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new folder to write in, which replaces the earlier results in `folder` if the block succeeds.

    If the block raises, `folder` is unchanged. Files that are not part of the earlier results stay; a file whose name
    a new file needs is renamed to `NAME.old`.
    """
    check_folder(folder, overwrite)
    folder = folder.resolve()
    there = folder.exists()
    (folder if there else folder.parent).mkdir(parents=True, exist_ok=True)
    next_to = not there or _may_be_replaced(folder)
    parent = folder.parent if next_to else folder
    for leftover in (parent, folder):
        _remove_leftovers(leftover)
    aside, lock = _new_aside(parent)
    try:
        inherited = aside.stat().st_mode & 0o7000  # Keep the setgid bit, by which files inherit a group.
        aside.chmod(inherited | (0o777 & ~umask()))
        yield aside
        check_folder(folder, overwrite)
        if not folder.exists():
            aside.rename(folder)
        elif not (next_to and _holds_only_ours(folder) and _exchange(aside, folder)):
            _finish_move(folder)
            aside.rename(folder / aside.name).rename(folder / READY)
            _move_in(folder)
    except OSError as error:
        if error.filename is None:  # The error "no space left on device" does not name the device.
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _unlocked(lock)


@contextmanager
def whole_file(path: Path, prefix: str | None = None) -> Iterator[IO[bytes]]:
    """Yield a temporary file next to `path`, whose name begins with `prefix`; rename it to `path` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=prefix or f".{path.name}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(aside, 0o666 & ~umask())
        os.replace(aside, path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # The error does not name the device that is full.
            error.filename = str(path.parent)
        raise


def umask() -> int:
    """Return the umask of this process, the permission bits that new files lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_leftovers(parent: Path) -> None:
    """Remove incomplete folders that no running process has locked."""
    for path in parent.glob(f"{_ASIDE}*"):
        with suppress(OSError):
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _new_aside(parent: Path) -> tuple[Path, int | None]:
    """Return a new folder in `parent`, and its lock (None if folders cannot be locked)."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=parent))
        try:
            lock = _lock(path)
        except OSError:
            return path, None
        if lock is not None and path.exists():
            return path, lock
        _unlocked(lock)  # Another process removed it as a leftover before it was locked.


def _lock(folder: Path) -> int | None:
    """Lock a folder until the returned descriptor is closed; return None if it is already locked or gone.

    Raises:
        OSError: folders cannot be locked on this system.
    """
    try:
        import fcntl
    except ImportError:  # This module does not exist on Windows.
        raise OSError("folders cannot be locked on Windows") from None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _unlocked(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _may_be_replaced(folder: Path) -> bool:
    """Return whether this folder can be exchanged without affecting mounts, current folders or other users."""
    here = Path.cwd()
    owned = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    writable = os.access(folder.parent, os.W_OK | os.X_OK)
    return owned and writable and not os.path.ismount(folder) and folder != here and folder not in here.parents


def _holds_only_ours(folder: Path) -> bool:
    """Return whether all files in a folder belong to earlier results and are unchanged."""
    record = record_in(folder)
    folders = {parent.as_posix() for name in record or () for parent in Path(name).parents}
    names = ((path, path.relative_to(folder).as_posix()) for path in folder.rglob("*"))
    return all(name in folders if is_folder(path) else _is_of(record, folder, name) for path, name in names)


def _is_of(record: dict[str, str] | None, folder: Path, name: str) -> bool:
    """Return whether a file is the summary of these results, an unchanged file that it lists, or our explorer page."""
    return record is not None and (
        name == SUMMARY or (name in record and is_ours(folder, name, record[name])) or is_page(folder, name)
    )


def _exchange(aside: Path, folder: Path) -> bool:
    """Exchange two folders in one system call; return False, with both unchanged, if that is not possible."""
    with suppress(OSError):
        shutil.copymode(folder, aside)
        os.chown(aside, -1, folder.stat().st_gid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        one, other = os.fsencode(aside), os.fsencode(folder)
        if sys.platform == "darwin":
            return libc.renamex_np(one, other, _RENAME_SWAP) == 0
        return libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE) == 0
    except (OSError, AttributeError, TypeError):  # The C library or the call does not exist.
        return False


def _finish_move(folder: Path) -> None:
    """Finish a move that a killed process began; rename anything else named `READY`.

    Raises:
        FileExistsError: another process is performing the move.
    """
    ready = folder / READY
    if not os.path.lexists(ready):
        return
    if not is_folder(ready) or (record_in(ready) is None and any(not is_folder(path) for path in ready.rglob("*"))):
        _rename_old(ready)
        return
    try:
        lock, busy = (found := _lock(ready)), found is None
    except OSError:  # Folders cannot be locked on this system.
        lock, busy = None, False
    if busy:
        raise FileExistsError(f"{folder} is in use by another process; wait for it, or give another folder with -o")
    try:
        _move_in(folder)
    finally:
        _unlocked(lock)


def _move_in(folder: Path) -> None:
    """Move new results into the folder and remove the earlier ones. An interrupted move can be repeated.

    The summary is moved last, since until then the earlier summary lists the files to remove.
    """
    ready = folder / READY
    before, new = record_in(folder), record_in(ready)
    if new is not None:
        for name in new:
            if is_plain(ready, name):
                _make_way(folder, name, before)
                os.replace(ready / name, folder / name)
        for name in {**(before or {}), PAGE: ""}:
            if name not in new and _is_of(before, folder, name):
                _remove(folder, name)
        _make_way(folder, SUMMARY, before)
        os.replace(ready / SUMMARY, folder / SUMMARY)
    shutil.rmtree(ready, ignore_errors=True)


def _make_way(folder: Path, name: str, before: dict[str, str] | None) -> None:
    """Create the parent folders of a new file; rename any file in its way that is not part of the earlier results."""
    for above in [folder / parent for parent in reversed(Path(name).parents[:-1])]:
        if os.path.lexists(above) and not is_folder(above):
            _rename_old(above)
        above.mkdir(exist_ok=True)
    if os.path.lexists(folder / name) and not _is_of(before, folder, name):
        _rename_old(folder / name)


def _rename_old(path: Path) -> None:
    names = (path.with_name(f"{path.name}.old{n or ''}") for n in itertools.count())
    path.rename(next(name for name in names if not os.path.lexists(name)))


def _remove(folder: Path, name: str) -> None:
    """Remove a file and the folders that it leaves empty."""
    (folder / name).unlink()
    for above in Path(name).parents[:-1]:
        with suppress(OSError):  # The folder is not empty.
            (folder / above).rmdir()
