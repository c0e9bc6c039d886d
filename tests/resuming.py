"""Script that kills `seeds` at random moments and resumes it, again and again, in forks of one warm process.

It prints JSON with the number of finished pairs at each kill, and the content of every resulting folder.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.numpy

TRIALS, KILLS = 5, 4


def inputs(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((20, 5))
    for k in range(4):
        rows = np.concatenate([shared + rng.standard_normal(shared.shape) * 0.3, rng.standard_normal((9, 5))])
        safetensors.numpy.save_file({"W_dec": rows.astype(np.float32)}, root / f"r{k}.safetensors")
    return [f"./r{k}.safetensors" for k in range(4)]


def forked(arguments: list[str], said: Path = Path(os.devnull)) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
        code = run(arguments)
    finally:
        os._exit(code)


def run(arguments: list[str]) -> int:
    from sae_geometry.cli import main as program

    sys.argv = ["sae-geometry", *arguments]
    try:
        program()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def held(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_bytes().hex() for p in sorted(folder.rglob("*")) if p.is_file()}


def n_kept(folder: Path) -> int:
    return len([p for p in folder.with_name(f"{folder.name}.pairs").glob("*.npz") if p.name[0] != "."])


def terminated(command: list[str]) -> dict[str, object]:
    """Send SIGTERM after the first pair, and return what the program prints and leaves."""
    folder = Path("terminated")
    child = forked([*command, folder.name], Path("said"))
    while not n_kept(folder):
        time.sleep(0.001)
    os.kill(child, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = Path("said").read_text().splitlines()
    pairs = n_kept(folder)
    for path in folder.with_name("terminated.pairs").iterdir():
        path.unlink()
    folder.with_name("terminated.pairs").rmdir()
    return {"code": code, "said": said[-2:], "pairs": pairs, "folder": folder.exists()}


def main() -> None:
    os.chdir(tempfile.mkdtemp())
    here = Path.cwd()
    command = ["seeds", *inputs(here), "--matching", "greedy", "--format", "png", "-o"]
    run([*command, "warm", "-q", "--json"])  # This loads compiled loops and fonts once for all forks.
    start = time.monotonic()
    os.waitpid(forked([*command, "truth"]), 0)
    whole = time.monotonic() - start
    moments = random.Random(0)
    kept, made = [], []
    for trial in range(TRIALS):
        folder = here / f"out{trial}"
        again = [*command, folder.name, "--resume", "--overwrite"]
        killed = 0
        while killed < KILLS:
            child = forked(again)
            until, deadline = moments.randint(0, 5), time.monotonic() + whole
            while n_kept(folder) < until and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, whole / 8))
            os.kill(child, signal.SIGKILL)
            if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                killed += 1
                kept.append(n_kept(folder))
        made.append({"code": os.WEXITSTATUS(os.waitpid(forked(again), 0)[1]), "held": held(folder)})
    stopped = terminated(command)
    left = sorted(p.name for p in here.iterdir() if p.name.startswith(".") or p.name.endswith(".pairs"))
    print(json.dumps({"kept": kept, "truth": held(here / "truth"), "made": made, "left": left,
                      "stopped": stopped}))  # fmt: skip


if __name__ == "__main__":
    main()
    sys.exit(0)
