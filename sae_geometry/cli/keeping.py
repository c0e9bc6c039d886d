"""What an interrupted command had done, kept beside its results until they are complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import typer

from sae_geometry.cli.speaking import Speaker
from sae_geometry.folders import InUseError, only_one

_ON = "the same command with --resume goes on from there"


@contextmanager
def kept_beside(folder: Path, *, resume: bool, speaker: Speaker) -> Iterator[Path]:
    """While this lasts, long sweeps are kept in a folder beside the results; after an error it says what is there.

    Raises:
        FileExistsError: something is there from an interruption, and `resume` is not set.
        InUseError: another process is at work there.
    """
    from sae_geometry.executor import keeping_sweeps

    kept = beside(folder, "sweeps")
    ended: typer.Exit | None = None
    with _alone(kept), keeping_sweeps(kept) as sweeps:
        check_leftovers(kept, resume, speaker)
        try:
            yield kept
        except typer.Exit as end:  # the results are complete; it is what comes after them that was not as hoped
            ended = end
        except BaseException:
            say_kept(kept, speaker)
            raise
        finally:
            if sweeps.trouble is not None:
                speaker.note(f"sweeps could not be kept in {kept}: {sweeps.trouble.strerror}")
        clear_sweeps(kept)
    if ended is not None:
        raise ended


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Only this process works in `kept`; where no folder can be made there, nothing can be kept either.

    Raises:
        InUseError: another process is at work there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(only_one(kept))
        except InUseError:
            raise
        except OSError:
            pass
        yield


def clear_sweeps(kept: Path) -> None:
    """Remove every sweep that is kept there: the results it was for are complete."""
    for path in kept.glob("sweep-*.npz"):
        with suppress(OSError):
            path.unlink()


def beside(folder: Path, suffix: str) -> Path:
    """Where the work for `folder` waits until it is complete: beside it, or in the cache where nothing may be written.

    So it is where the folder of results is a mount and all around it is read-only.
    """
    from sae_geometry.sources.cache_folder import cache_root

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


def say_kept(kept: Path, speaker: Speaker) -> None:
    """What is there after an interruption, if anything."""
    if finished(kept):
        speaker.note(f"what was done is kept in {kept} ({_told(kept)}); {_ON}")


def finished(kept: Path) -> list[Path]:
    """The records there: of finished pairs, and of sweeps as far as they came."""
    return sorted(p for p in kept.glob("*.npz") if not p.name.startswith("."))


def _told(kept: Path) -> str:
    sweeps = sum(p.name.startswith("sweep-") for p in finished(kept))
    pairs = len(finished(kept)) - sweeps
    told = [(pairs, "finished pair"), (sweeps, "sweep")]
    return " and ".join(f"{n:,} {what}{'' if n == 1 else 's'}" for n, what in told if n)
