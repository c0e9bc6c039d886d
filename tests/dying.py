"""Run as a script: writes a folder of results in processes that are killed, each before another of its file operations.

Prints a JSON list: for every place where a process was killed, what the folder held then, what it held once the next
process had opened it, and what hidden thing was left after the next run. Needs nothing heavy, so that a hundred deaths
take a second.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sae_geometry.io import atomic_folder as folders

EVENTS = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "open", "shutil.rmtree", "ctypes.call_function")
BEFORE = {"summary.json": "old", "figures/a.png": "old", "note": "mine"}
AFTER = {"summary.json": "new", "figures/b.png": "new", "table": "new"}
_countdown = 0


def _hook(event: str, _: object) -> None:
    global _countdown
    if _countdown and event in EVENTS:
        _countdown -= 1
        if not _countdown:
            os.kill(os.getpid(), signal.SIGKILL)


def write(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


def held(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def dies_at(step: int, work: Callable[[], None]) -> bool:
    """Whether `work`, in a process of its own, was killed before its `step`-th file operation."""
    global _countdown
    child = os.fork()
    if not child:
        _countdown = step
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def renew(folder: Path) -> None:
    with folders.fresh_folder(folder, overwrite=True) as aside:
        write(aside, AFTER)


def prepare(root: Path, how: str) -> Path:
    folder = root / "results"
    if how != "new":
        folder.mkdir()
    if how not in ("new", "empty"):
        write(folder, BEFORE)
    os.chdir(folder if how == "current" else root)
    return folder


def survey(how: str, again: bool) -> list[dict[str, object]]:
    """Die at every step; with `again`, have the next process die at every step of its recovery too."""
    seen: list[dict[str, object]] = []
    if how == "no exchange":
        folders._exchange = lambda *_: False
    step, recovery = 1, 0
    while True:
        root = Path(tempfile.mkdtemp())
        try:
            folder = prepare(root, how)
            died = dies_at(step, lambda folder=folder: renew(folder))
            at_once = held(folder)
            died_again = recovery > 0 and dies_at(recovery, lambda folder=folder: folders.recover(folder))
            folders.recover(folder)
            opened = held(folder)
            renew(folder)
            left = sorted(p.name for p in [*root.iterdir(), *folder.iterdir()] if p.name.startswith("."))
            os.chdir("/")
        finally:
            shutil.rmtree(root)
        if died:
            seen.append({"step": step, "at_once": at_once, "opened": opened, "left": left})
        elif not recovery:
            return seen
        if again and died_again:
            recovery += 1
        elif died:
            step, recovery = step + 1, int(again)
        else:
            return seen


if __name__ == "__main__":
    sys.addaudithook(_hook)
    print(json.dumps(survey(sys.argv[1], sys.argv[2:] == ["again"])))
