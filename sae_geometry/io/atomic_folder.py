"""Write a folder of results so that it is as it was or complete, whatever ends the process and when.

New results are written in a folder aside. One system call puts them in place: a rename where nothing is there yet, an
*exchange* of the two folders where there is nothing but earlier results. In a folder that has other files in it, or has
to stay the folder it is (a mount, the current folder, one whose parent cannot be written), files are moved one by one:
readers see the new results from the moment they are complete (`results_folder.READY`), and the next writer finishes the
move. Only files that the record of the earlier results lists, and that are still as they were written, are removed.
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

from sae_geometry.io.results_folder import READY, Record, current_record, is_folder, is_ours, is_plain, record_in

_ASIDE = ".sae-geometry-partial-"  # being written; also what an exchange left over
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2  # of Linux and macOS


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that results must not go to, before any work is done. Changes nothing.

    Raises:
        FileExistsError: it is a file or lies below one, it has something in it and `overwrite` is not set, or it is to
            be overwritten but holds no results of ours.
        PermissionError: nothing may be written there.
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
            f"{folder} holds no results of ours (no summary that lists the files written), so --overwrite replaces "
            "nothing in it; give another folder with -o"
        )


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing may be written, before any work is done.

    Raises:
        PermissionError: it is one.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "may not be written to; give another folder with -o", str(folder))


@contextmanager
def fresh_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A new folder to write in, whose contents become those of `folder` if the block ends well.

    If it does not, `folder` is as it was. Files in it that are not of the earlier results stay; one whose name is
    needed gets another (`NAME.old`).

    Raises:
        FileExistsError: see `check_folder`.
    """
    check_folder(folder, overwrite)
    folder = folder.resolve()
    there = folder.exists()
    (folder if there else folder.parent).mkdir(parents=True, exist_ok=True)
    beside = not there or _may_be_replaced(folder)
    parent = folder.parent if beside else folder
    for leftover in (parent, folder):
        _remove_leftovers(leftover)
    aside, lock = _new_aside(parent)
    try:
        aside.chmod(0o777 & ~umask())
        yield aside
        check_folder(folder, overwrite)
        if not folder.exists():
            aside.rename(folder)
        elif not (beside and _holds_only_ours(folder) and _exchange(aside, folder)):
            _finish_move(folder)
            aside.rename(folder / aside.name).rename(folder / READY)
            _move_in(folder)
    except OSError as error:
        if error.filename is None:  # "no space left on device", but which
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _unlocked(lock)


@contextmanager
def whole_file(path: Path, prefix: str | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which becomes `path` if the block ends well; until then it is next to it as `prefix`….

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "new" / "x"
        >>> with whole_file(path, ".half-") as file:
        ...     _ = file.write(b"all of it")
        >>> path.read_bytes()
        b'all of it'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=prefix or f".{path.name}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(aside, 0o666 & ~umask())
        os.replace(aside, path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # "no space left on device", but which
            error.filename = str(path.parent)
        raise


def umask() -> int:
    """Return the permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_leftovers(parent: Path) -> None:
    """Remove the half-written folders of processes that have ended; those of living ones are locked."""
    for path in parent.glob(f"{_ASIDE}*"):
        with suppress(OSError):
            lock = _lock(path)
            if lock is not None:
                try:
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(lock)


def _new_aside(parent: Path) -> tuple[Path, int | None]:
    """A new folder in `parent`, and the lock that shows that its process lives, where folders can be locked."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=parent))
        try:
            lock = _lock(path)
        except OSError:
            return path, None
        if lock is not None and path.exists():
            return path, lock
        _unlocked(lock)  # another process took it for a leftover before it was locked


def _lock(folder: Path) -> int | None:
    """Hold a folder, no link, until the descriptor is closed or the process ends; None if it is held or gone.

    Raises:
        OSError: folders cannot be locked here.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError("folders cannot be locked here") from None
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
    """Return whether another folder may take the place of this one without anything that points to it noticing."""
    here = Path.cwd()
    owned = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    writable = os.access(folder.parent, os.W_OK | os.X_OK)
    return owned and writable and not os.path.ismount(folder) and folder != here and folder not in here.parents


def _holds_only_ours(folder: Path) -> bool:
    """Return whether everything in a folder is of earlier results and as it was written."""
    record = record_in(folder) or Record("", {})
    folders = {parent.as_posix() for name in record.files for parent in Path(name).parents}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        known = name in folders if is_folder(path) else _is_of(record, folder, name)
        if not known:
            return False
    return True


def _is_of(record: Record | None, folder: Path, name: str) -> bool:
    """Return whether a file is of these results: the record itself, or listed there and as it was written."""
    if record is None:
        return False
    return name == record.mark or (name in record.files and is_ours(folder, name, record.files[name]))


def _exchange(aside: Path, folder: Path) -> bool:
    """Exchange the names of two folders in one system call; False where there is none for it, nothing done."""
    with suppress(OSError):
        shutil.copymode(folder, aside)
        os.chown(aside, -1, folder.stat().st_gid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        one, other = os.fsencode(aside), os.fsencode(folder)
        if sys.platform == "darwin":
            return libc.renamex_np(one, other, _RENAME_SWAP) == 0
        return libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE) == 0
    except (OSError, AttributeError, TypeError):  # no such call in this library, or no library
        return False


def _finish_move(folder: Path) -> None:
    """Finish the move that a killed process had begun; what only bears the name of one makes way.

    Raises:
        FileExistsError: another process is at it.
    """
    ready = folder / READY
    if not os.path.lexists(ready):
        return
    if not is_folder(ready) or (record_in(ready) is None and any(not is_folder(path) for path in ready.rglob("*"))):
        _rename_old(ready)
        return
    try:
        lock, busy = (found := _lock(ready)), found is None
    except OSError:  # folders cannot be locked here
        lock, busy = None, False
    if busy:
        raise FileExistsError(f"{folder} is in use by another process; wait for it, or give another folder with -o")
    try:
        _move_in(folder)
    finally:
        _unlocked(lock)


def _move_in(folder: Path) -> None:
    """Move what is ready into the folder and remove earlier results: as often as need be, from wherever it stopped.

    The record is moved last. Until then the earlier one is in place, and says what is to go.
    """
    ready = folder / READY
    before, new = record_in(folder), record_in(ready)
    if new is not None:
        for name in new.files:
            if is_plain(ready, name):
                _make_way(folder, name, before)
                os.replace(ready / name, folder / name)
        for name in () if before is None else (*before.files, before.mark):
            if name not in (*new.files, new.mark) and _is_of(before, folder, name):
                _remove(folder, name)
        _make_way(folder, new.mark, before)
        os.replace(ready / new.mark, folder / new.mark)
    shutil.rmtree(ready, ignore_errors=True)


def _make_way(folder: Path, name: str, before: Record | None) -> None:
    """Give another name to what is not of earlier results and stands where a file or its folders are to be."""
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
    """Remove a file, and the folders that it leaves empty."""
    (folder / name).unlink()
    for above in Path(name).parents[:-1]:
        with suppress(OSError):  # something else is in it
            (folder / above).rmdir()
