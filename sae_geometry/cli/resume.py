"""Checkpoints of finished pairs next to the results, until these are complete."""

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
    """Yield the checkpoint folder for finished pairs of the results in `folder`; after an error, report its contents.

    Args:
        usual: default folder of the same command; if it differs, the hint names `folder`.

    Raises:
        FileExistsError: pairs of an interrupted run exist, and `resume` is not set.
    """
    kept = checkpoint_folder(folder)
    for half in kept.glob(".pair-*"):  # from a process that was killed while writing
        half.unlink()
    done = _in_words(kept)
    if done and not resume:
        raise FileExistsError(f"{kept} holds {done} of an interrupted run; add --resume to use them, or delete it")
    if resume and not done:
        speaker.note(f"no finished pairs are in {kept}: starting from the first")
    try:
        yield kept
    except typer.Exit:  # the results are saved, but could not be logged
        raise
    except BaseException:
        if done := _in_words(kept):
            where = "" if folder == usual else f" -o {shlex.quote(str(folder))}"
            speaker.note(f"{done} saved in {kept}; the same command with --resume{where} continues from there")
        raise
    finally:
        with suppress(OSError):  # pairs remain
            kept.rmdir()


def checkpoint_folder(folder: Path) -> Path:
    """Return the checkpoint folder for `folder`: next to it, or in the cache where its parent is not writable.

    The latter occurs when the results folder is a mount point in a read-only file system.
    """
    from sae_geometry.sources.cache import cache_root

    there = folder.resolve() if folder.name in ("", "..") else folder  # `.` has no name
    above = next(p for p in there.absolute().parents if p.exists())
    if os.access(above, os.W_OK | os.X_OK):
        return there.with_name(f"{there.name}.pairs")
    which = hashlib.sha256(os.fsencode(there.resolve())).hexdigest()[:16]
    return cache_root() / "pairs" / f"{there.name}-{which}.pairs"


def _in_words(kept: Path) -> str:
    """Count the finished pairs in words, "3 finished pairs"; empty if there are none."""
    n = sum(not p.name.startswith(".") for p in kept.glob("*.npz"))
    return counted(n, "finished pair") if n else ""
