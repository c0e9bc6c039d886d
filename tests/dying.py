"""Script that writes a results folder in many processes and kills each before a different file operation.

It prints a JSON list with the folder's content after each death, what a reader got from it, and the content after the
next run. It imports nothing heavy, so that a hundred deaths take a second.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from sae_geometry.io import atomic_folder as folders
from sae_geometry.io import results_folder

EVENTS = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "open", "shutil.rmtree", "ctypes.call_function")
BEFORE = {"figures/a.png": "old", "table": "old"}
AFTER = {"figures/b.png": "new", "table": "new"}
MINE = {"note": "mine", "figures/c.png": "mine"}
_countdown = 0


def _hook(event: str, _: object) -> None:
    global _countdown
    if _countdown and event in EVENTS:
        _countdown -= 1
        if not _countdown:
            os.kill(os.getpid(), signal.SIGKILL)


def write(folder: Path, contents: dict[str, str]) -> None:
    """Write results and the summary that lists them."""
    add(folder, contents)
    summary = {"schema_version": 1, "holds": sorted(contents), "files": results_folder.manifest(folder)}
    (folder / "summary.json").write_text(json.dumps(summary))


def add(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


def held(folder: Path) -> dict[str, str]:
    """Return the text of every file by name, leaving out a summary whose checksums are right."""
    found = {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}
    summary = found.pop("summary.json", None)
    if summary is not None:
        listed = json.loads(summary)["files"]
        if any(hashlib.sha256(found.get(name, "").encode()).hexdigest() != listed[name] for name in listed):
            found["summary.json"] = summary
    return found


def opened(folder: Path) -> dict[str, str]:
    """Return what a reader gets: the complete content of every file that the summary lists."""
    try:
        summary = results_folder.read_json(folder, "summary.json")
    except FileNotFoundError:
        return {}
    found = {}
    for name in summary["holds"]:
        with results_folder.open_inside(folder, name) as file:
            found[name] = file.read().decode()
    return found


def dies_at(step: int, work: Callable[[], None]) -> bool:
    """Return whether `work`, run in a child process, was killed before its `step`-th file operation."""
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
    if how not in ("new", "empty", "empty current"):
        write(folder, BEFORE)
    if how == "with files of others":
        add(folder, MINE)
    os.chdir(folder if "current" in how else root)
    return folder


def survey(how: str) -> list[dict[str, object]]:
    """Die at every step of a write, and again at every third step of the next write."""
    seen: list[dict[str, object]] = []
    if how == "no exchange":
        folders._exchange = lambda *_: False
    for step in itertools.count(1):
        root = Path(tempfile.mkdtemp())
        try:
            folder = prepare(root, how)
            died = dies_at(step, lambda folder=folder: renew(folder))
            at_once, read = held(folder), opened(folder)
            dies_at(1 + step % 3 * 4, lambda folder=folder: renew(folder))
            again = opened(folder)
            renew(folder)
            left = sorted(p.name for p in [*root.iterdir(), *folder.iterdir()] if p.name.startswith("."))
            at_last = held(folder)
            os.chdir("/")
        finally:
            shutil.rmtree(root)
        if not died:
            return seen
        seen.append({"at_once": at_once, "read": read, "again": again, "at_last": at_last, "left": left})
    return seen


if __name__ == "__main__":
    sys.addaudithook(_hook)
    print(json.dumps(survey(sys.argv[1])))
