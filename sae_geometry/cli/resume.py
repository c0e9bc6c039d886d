"""What an interrupted command had done, kept beside its results until they are complete."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import typer

from sae_geometry.cli.console import Speaker


class InUseError(FileExistsError):
    """Another process is at work for a folder of results."""


@dataclass(frozen=True)
class Place:
    """Where a command's results go, and where its unfinished work is kept meanwhile.

    Attributes:
        folder: of the results.
        kept: beside it.
        again: what is typed to go on from there.
    """

    folder: Path
    kept: Path
    again: str


def folder_names(out: Path | None, command: str, names: list[str]) -> Iterator[Path]:
    """`out` alone, or new folders in the current one named after the command and its inputs: NAME, NAME-2, …"""
    if out is not None:
        yield out
        return
    words = [command, *(re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "run" for name in names)]
    stem = "-".join(words).encode()[:120].decode(errors="ignore")  # a file name has at most 255 bytes
    yield from (p for n in itertools.count(1) if not (p := Path(stem if n == 1 else f"{stem}-{n}")).exists())


@contextmanager
def place_for(out: Path | None, command: str, names: list[str], *, work: str, resume: bool) -> Iterator[Place]:
    """A place that no other process is at work for while this lasts: the first of `folder_names`.

    Args:
        out, command, names: as there.
        work: the suffix of the folder where unfinished work is kept.
        resume: to go on from what is kept, so that a name in use is refused, not passed over.

    Raises:
        InUseError: another process is at work for `out`, or for what is to be gone on from.
    """
    for n, folder in enumerate(folder_names(out, command, names)):
        with ExitStack() as held:
            try:
                held.enter_context(_alone(folder))
            except InUseError:
                if out is None and not resume:
                    continue
                raise
            if out is None and folder.exists():  # made since it was asked
                continue
            where = f" -o {shlex.quote(str(folder))}" if out is None and n else ""
            yield Place(folder, beside(folder, work), f"the same command with --resume{where} goes on from there")
            return


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """This process alone works for `folder`, as far as can be known: where no lock can be made it goes on without.

    Raises:
        InUseError: another process does.
    """
    import filelock

    from sae_geometry.sources.cache import holding

    with ExitStack() as held:
        try:
            held.enter_context(holding(folder.resolve(), seconds=0.0))
        except filelock.Timeout:
            raise InUseError(
                f"{folder} is in use by another process; wait for it, or give another folder with -o"
            ) from None
        except OSError:
            pass
        yield


@contextmanager
def kept_beside(place: Place, *, resume: bool, speaker: Speaker) -> Iterator[None]:
    """While this lasts, long sweeps are kept beside the results; after an error it says what is there.

    Raises:
        FileExistsError: something is there from an interruption, and `resume` is not set.
    """
    from sae_geometry.distributed import keeping_sweeps

    check_leftovers(place.kept, resume, speaker)
    ended: typer.Exit | None = None
    with keeping_sweeps(place.kept) as sweeps:
        try:
            yield
        except typer.Exit as end:  # the results are complete; it is what comes after them that was not as hoped
            ended = end
        except BaseException:
            say_kept(place, speaker)
            raise
        finally:
            if sweeps.trouble is not None:
                speaker.note(f"sweeps could not be kept in {place.kept}: {sweeps.trouble.strerror}")
    clear_sweeps(place.kept)
    with suppress(OSError):
        place.kept.rmdir()
    if ended is not None:
        raise ended


def clear_sweeps(kept: Path) -> None:
    """Remove every sweep that is kept there: the results it was for are complete."""
    for path in kept.glob("sweep-*.npz"):
        with suppress(OSError):
            path.unlink()


def beside(folder: Path, suffix: str) -> Path:
    """Where the work for `folder` waits until it is complete: beside it, or in the cache where nothing may be written.

    So it is where the folder of results is a mount and all around it is read-only.
    """
    from sae_geometry.sources.cache import cache_root

    there = folder.resolve() if folder.name in ("", "..") else folder  # `.` has no name of its own
    above = next(p for p in there.absolute().parents if p.exists())
    if os.access(above, os.W_OK | os.X_OK):
        return there.with_name(f"{there.name}.{suffix}")
    which = hashlib.sha256(os.fsencode(there.resolve())).hexdigest()[:16]
    return cache_root() / suffix / f"{there.name}-{which}.{suffix}"


def check_leftovers(kept: Path, resume: bool, speaker: Speaker) -> None:
    """Refuse to begin anew over what an interrupted command had done; say so where there is nothing to go on from.

    Raises:
        FileExistsError: something is there, and `resume` is not set.
    """
    if finished(kept) and not resume:
        raise FileExistsError(
            f"{kept} holds what an interrupted command had done ({_told(kept)}); add --resume to go on from there, or "
            "delete it"
        )
    if resume and not finished(kept):
        speaker.note(f"nothing is kept in {kept}: the work begins anew")


def say_kept(place: Place, speaker: Speaker) -> None:
    """What is there after an interruption, if anything."""
    if finished(place.kept):
        speaker.note(f"what was done is kept in {place.kept} ({_told(place.kept)}); {place.again}")


def finished(kept: Path) -> list[Path]:
    """The records there: of finished pairs, and of sweeps as far as they came."""
    return sorted(p for p in kept.glob("*.npz") if not p.name.startswith("."))


def _told(kept: Path) -> str:
    sweeps = sum(p.name.startswith("sweep-") for p in finished(kept))
    pairs = len(finished(kept)) - sweeps
    told = [(pairs, "finished pair"), (sweeps, "sweep")]
    return " and ".join(f"{n:,} {what}{'' if n == 1 else 's'}" for n, what in told if n)
