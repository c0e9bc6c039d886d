"""Time a whole comparison relative to its sweep, and a command relative to its imports.

Each size runs in its own process after a warm-up. Contenders are interleaved (A B A B), and ratios are medians.

    python benchmarks/answer.py                        # 24,576 × 768, 46,080 × 768 and the demo's command
    python benchmarks/answer.py --size 8192 512 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from populations import POPULATIONS, pair

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.nulls import LISTED

COMPARE = ["sae-geometry", "compare", "demo:local-seed0", "demo:local-seed1", "--overwrite", "-q", "-o"]
LOADED = """
import contextlib, json, sys
from sae_geometry.cli import main
sys.argv = json.loads(sys.argv[1])
with contextlib.suppress(SystemExit):
    main()
print(json.dumps([name for name in sys.modules if name != "__main__"]))
"""  # prints the modules that the command has loaded when it ends
IMPORT = """
import contextlib, importlib, json, sys
for name in json.loads(sys.argv[1]):
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""
STAGES = ("compare", "repr", "save")


def timed(ask: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    begun = time.perf_counter()
    answer = ask(*arguments, **options)
    return time.perf_counter() - begun, answer


def dictionaries(n: int, d: int) -> list[Dictionary]:
    """Return two dictionaries that share 30 % of their latents at cosine 0.8."""
    drawn = pair(POPULATIONS["spectrum 1/k^.5"](d), (n, n), 0.3, 0.8, 0)
    return [sg.Dictionary.from_decoder(torch.from_numpy(x), latent_axis=0, name=name)
            for name, x in (("a", drawn.a), ("b", drawn.b))]  # fmt: skip


def whole(n: int, d: int, rounds: int) -> str:
    """Time the sweep, then the stages of a comparison, `rounds` times each."""
    narrow = sg.load("demo:local-narrow-seed0")
    with tempfile.TemporaryDirectory() as folder:
        sg.compare(narrow, narrow).save(Path(folder) / "warm")
    seconds: dict[str, list[float]] = {name: [] for name in ("sweep", *STAGES)}
    a, b = dictionaries(n, d)
    expected = sg.estimate([a, b])
    for turn in range(rounds):
        left, right = a.renamed(f"a{turn}"), b.renamed(f"b{turn}")  # New names prevent cached results.
        seconds["sweep"].append(timed(listing_sweep, a.directions, b.directions, LISTED)[0])
        took, c = timed(sg.compare, left, right)
        seconds["compare"].append(took)
        seconds["repr"].append(timed(repr, c)[0])
        with tempfile.TemporaryDirectory() as folder:
            seconds["save"].append(timed(c.save, Path(folder) / "out")[0])
    sweeps = seconds["sweep"]
    ratios = {name: statistics.median(x / y for x, y in zip(seconds[name], sweeps, strict=True)) for name in STAGES}
    cells = " | ".join(f"{ratios[name]:.2f}" for name in STAGES)
    total = statistics.median(map(sum, zip(*(seconds[name] for name in STAGES), strict=True)))
    return (
        f"| {n:,} × {d} | {statistics.median(sweeps):.1f} s | {cells} | {sum(ratios.values()):.2f} | "
        f"{(expected.seconds + expected.writing) / total:.2f} |"
    )


def command(rounds: int) -> str:
    """Time the command on the demo and the import of every module that it loads, in new processes."""
    ratios, took = [], []
    with tempfile.TemporaryDirectory() as folder:
        python, asked = [sys.executable, "-c"], json.dumps([*COMPARE, f"{folder}/out"])
        told = subprocess.run([*python, LOADED, asked], check=True, capture_output=True, text=True)
        needed = told.stdout.splitlines()[-1]
        for _ in range(rounds):
            imports, _ = timed(subprocess.run, [*python, IMPORT, needed], check=True)
            run, _ = timed(subprocess.run, [*python, LOADED, asked], check=True, capture_output=True)
            ratios.append(run / imports)
            took.append(run)
    return f"demo command: {statistics.median(took):.1f} s, {statistics.median(ratios):.2f} × its imports"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, metavar=("N", "D"), help="measure one size, in this process")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.size:
        print(whole(*options.size, options.rounds), flush=True)
        return
    print(f"| size | sweep | {' | '.join(STAGES)} | whole / sweep | estimate / measured |\n|{'---|' * 7}", flush=True)
    for n, d in ((24576, 768), (46080, 768)):
        own = [sys.executable, __file__, "--size", str(n), str(d), "--rounds", str(options.rounds)]
        subprocess.run(own, check=True)
    print(command(options.rounds))


if __name__ == "__main__":
    main()
