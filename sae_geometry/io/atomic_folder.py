"""A folder of results is as it was or complete, whatever ends the process and when: SIGKILL at any moment included.

New results are written in a folder aside. One system call then puts them in place: a rename where nothing is there yet,
an *exchange* of the two folders where something is. A folder that has to stay the folder it is (a mount, the current
folder, one whose parent cannot be written) has its contents moved one by one instead, by a journal: an interrupted move
is finished, never undone, by whoever opens the folder next. What a killed process left is known by the lock that it no
longer holds, and removed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# Any of these makes a folder one of ours.
MARKS = ("summary.json", "match.json")
_ASIDE = ".sae-geometry-partial-"  # being written; also what an exchange left over
_READY = ".sae-geometry-ready"  # complete, to be moved into the folder that it lies in
_OLD = ".sae-geometry-old"  # where the contents of that folder go meanwhile
_JOURNAL, _HALF = ".journal", ".journal-half"
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2  # of Linux and macOS


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that results must not go to, before any work is done.

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
    if above != folder:
        return
    recover(folder)
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(f"{folder} is not empty; give another folder with -o, or --overwrite to replace it")
    if not any((folder / name).is_file() for name in MARKS):
        raise FileExistsError(
            f"{folder} holds no results of ours, so --overwrite will not empty it; give another folder with -o"
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

    If it does not, `folder` is as it was. A link stays a link to the same place; the current folder and a mount stay
    the folders they are.

    Raises:
        FileExistsError: see `check_folder`.
    """
    check_folder(folder, overwrite)
    folder = folder.resolve()
    there = folder.exists()
    (folder if there else folder.parent).mkdir(parents=True, exist_ok=True)
    beside = not there or _may_be_replaced(folder)
    sweep_leftovers(folder.parent if beside else folder)
    aside, lock = _new_aside(folder.parent if beside else folder)
    try:
        aside.chmod(0o777 & ~umask())
        yield aside
        if not there:
            aside.rename(folder)
        elif not (beside and _exchange(aside, folder)):
            if beside:  # the file system exchanges nothing: move one by one, from within
                aside = aside.rename(folder / aside.name)
            _move_in(aside, folder)
    except OSError as error:
        if error.filename is None:  # "no space left on device", but which
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        _unlocked(lock)


def recover(folder: Path) -> None:
    """Finish what a killed process had begun to move into `folder`, and remove what it left there half-written.

    Does nothing where another process is at it, and nothing to a folder that cannot be written.
    """
    ready, old = folder / _READY, folder / _OLD
    with suppress(OSError):
        if ready.is_dir():
            lock = _lock(ready)
            if lock is None:
                return
            try:
                _finish(ready, folder)
            finally:
                os.close(lock)
        if old.is_dir():  # everything new is in place; only the old was still being deleted
            shutil.rmtree(old)
        sweep_leftovers(folder)


def sweep_leftovers(parent: Path) -> None:
    """Remove the half-written folders in `parent` whose processes are gone; those of living ones are locked."""
    with suppress(OSError):
        for path in parent.glob(f"{_ASIDE}*"):
            lock = _lock(path)
            if lock is not None:
                try:
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(lock)


@contextmanager
def whole_file(path: Path, prefix: str) -> Iterator[IO[bytes]]:
    """A file to write, which becomes `path` if the block ends well; until then it lies beside it as `prefix`….

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
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(aside, path)
    except BaseException as error:
        Path(aside).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # "no space left on device", but which
            error.filename = str(path.parent)
        raise


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
        _unlocked(lock)  # somebody took it for a leftover before it was locked


def _lock(folder: Path) -> int | None:
    """Hold `folder` until the descriptor is closed or the process ends, however it ends; None if it is held or gone.

    Raises:
        OSError: folders cannot be locked here.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError("folders cannot be locked here") from None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
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
    """Whether another folder may take the place of this one and nobody would miss it."""
    here = Path.cwd()
    owned = not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()
    writable = os.access(folder.parent, os.W_OK | os.X_OK)
    return owned and writable and not os.path.ismount(folder) and folder != here and folder not in here.parents


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


def _move_in(aside: Path, folder: Path) -> None:
    """Put the contents of `aside`, a folder within `folder`, in the place of what else is there, or change nothing.

    From the rename to `_READY` on, what was begun will be finished, by this process or the next; until then, nothing
    has changed.
    """
    ready, old = folder / _READY, folder / _OLD
    coming = [p.name for p in aside.iterdir()]
    leaving = [p.name for p in folder.iterdir() if not p.name.startswith((_ASIDE, _READY, _OLD))]
    (aside / _JOURNAL).write_text(json.dumps({"leaving": leaving, "coming": coming}), encoding="utf-8")
    aside.rename(ready)
    try:
        _finish(ready, folder)
    except BaseException:
        if not ready.exists():  # all is in place
            raise
        # Everything back, as long as that works; if it does not, the journal stays, and the next to come goes forward.
        for name in coming:
            if not os.path.lexists(ready / name):
                (folder / name).rename(ready / name)
        if (ready / _HALF).exists():
            (ready / _HALF).rename(ready / _JOURNAL)
        for name in leaving:
            if os.path.lexists(old / name):
                (old / name).rename(folder / name)
        with suppress(FileNotFoundError):
            old.rmdir()
        ready.rename(aside)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _finish(ready: Path, folder: Path) -> None:
    """Move what was there to `_OLD` and what is ready to its place: as often as need be, from wherever it stopped."""
    old, journal, half = folder / _OLD, ready / _JOURNAL, ready / _HALF
    if journal.exists():
        names = json.loads(journal.read_text(encoding="utf-8"))
        old.mkdir(exist_ok=True)
        for name in names["leaving"]:
            if os.path.lexists(folder / name):
                (folder / name).rename(old / name)
        journal.rename(half)  # from here on, what bears an old name in `folder` is new
    if half.exists():
        for name in json.loads(half.read_text(encoding="utf-8"))["coming"]:
            if os.path.lexists(ready / name):
                (ready / name).rename(folder / name)
        half.unlink()
    ready.rmdir()


def umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
