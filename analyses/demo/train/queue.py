"""Train several runs at once, each in its own process. If asked to stop, stop them all with their state saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep

LOOK_EVERY = 1.0  # seconds


def train_all(
    names: Sequence[str], folder: Path, at_once: int, stopped: Callable[[], bool], say: Callable[[str], None]
) -> list[str]:
    """Train the runs in this order, `at_once` at a time, and return the names of those that failed.

    Each run is trained by `run NAME`, with its log in `folder/runs/NAME.log`. A failure does not stop the other runs.
    """
    waiting, failed = list(names), []
    going: dict[str, subprocess.Popen[bytes]] = {}
    while (waiting and not stopped()) or going:
        while waiting and len(going) < at_once and not stopped():
            name = waiting.pop(0)
            going[name] = _start(name, folder)
            say(f"started {name}")
        sleep(LOOK_EVERY)
        if stopped():
            for process in going.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process in going.values():
                process.wait()
        for name in [name for name, process in going.items() if process.poll() is not None]:
            code = going.pop(name).returncode
            say(f"{name} ended with exit code {code}")
            if code and not stopped():
                failed.append(name)
    return failed


def _start(name: str, folder: Path) -> subprocess.Popen[bytes]:
    log = folder / "runs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "analyses.demo.train", "run", name, "--folder", str(folder)]
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
