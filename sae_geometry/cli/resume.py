"""Checkpoints of finished pairs, stored until the results are complete."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from sae_geometry.cli.console import Speaker
from sae_geometry.io.formatting import counted


@contextmanager
def kept_pairs(folder: Path, *, usual: Path, resume: bool, speaker: Speaker) -> Iterator[Path]:
    """Yield the folder for the finished pairs of the results in `folder`; after an error, print how to resume.

    Args:
        usual: folder that the command would choose by default; if `folder` differs, the hint includes -o.

    Raises:
        FileExistsError: pairs of an interrupted run exist, and `resume` is not set.
    """
    kept = checkpoint_folder(folder)
    for half in kept.glob(".pair-*"):  # A process was killed while it was writing this file.
        half.unlink()
    done = _in_words(kept)
    if done and not resume:
        raise FileExistsError(f"{kept} holds {done} of an interrupted run; add --resume to use them, or delete {kept}")
    if resume and not done:
        speaker.note(f"{kept} holds no finished pairs: starting from the first")
    try:
        yield kept
    except typer.Exit:  # The results are saved; only logging failed.
        raise
    except BaseException:
        if done := _in_words(kept):
            where = "" if folder == usual else f" -o {shlex.quote(str(folder))}"
            speaker.note(f"{done} saved in {kept}; run the same command with --resume{where} to continue")
        raise
    finally:
        with suppress(OSError):  # The folder still holds pairs.
            kept.rmdir()


def checkpoint_folder(folder: Path) -> Path:
    """Return the folder for finished pairs: next to `folder` or, if its parent is not writable, in the cache.

    The parent of a mount point, for example, may be in a read-only file system.
    """
    from sae_geometry.sources.cache import cache_root

    there = folder.resolve() if folder.name in ("", "..") else folder  # `.` has no name.
    above = next(p for p in there.absolute().parents if p.exists())
    if os.access(above, os.W_OK | os.X_OK):
        return there.with_name(f"{there.name}.pairs")
    which = hashlib.sha256(os.fsencode(there.resolve())).hexdigest()[:16]
    return cache_root() / "pairs" / f"{there.name}-{which}.pairs"


def _in_words(kept: Path) -> str:
    n = sum(not p.name.startswith(".") for p in kept.glob("*.npz"))
    return counted(n, "finished pair") if n else ""
