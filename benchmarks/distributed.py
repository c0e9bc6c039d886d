"""Time a sweep, and the pairs of several seeds, in this process and on one and two Dask workers.

The contenders take turns, round after round, in one process. Printed are medians of the wall time, of the processor
time of all processes, and of the busiest process. On a shared machine only processor times are meaningful: "all"
relative to the single thread is the overhead of sending, scheduling and merging; "busiest" is about the wall time with
enough free cores, and its inverse ratio is the speed-up. Each worker has one thread. Answers must be bit-identical.

    python benchmarks/distributed.py            # sweeps of 12,288 × 12,288 × 768, top-1 and top-16; ten pairs of seeds
    python benchmarks/distributed.py --n 4096 --rounds 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# This file must not shadow the package `distributed`.
sys.path = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]

import torch

import sae_geometry as sg
from sae_geometry.distributed.client import _opened
from sae_geometry.distributed.dask_runner import DaskRunner
from sae_geometry.kernels.settings import changed
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.types import Sweep


def sae_like(n: int, d: int, seed: int) -> torch.Tensor:
    """Return unit rows; two thirds are near directions that every seed shares."""
    shared = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    own = torch.randn(n, d, generator=torch.Generator().manual_seed(seed + 1))
    mix = torch.where(torch.arange(n)[:, None] % 3 > 0, shared + 0.6 * own, own)
    return torch.nn.functional.normalize(mix[torch.randperm(n, generator=torch.Generator().manual_seed(seed))], dim=1)


def same(x: Sweep, y: Sweep) -> bool:
    """Return whether two sweeps are bit-identical."""
    assert x.cols is not None
    assert y.cols is not None
    pairs = [
        (getattr(p, f), getattr(q, f)) for p, q in ((x.rows, y.rows), (x.cols, y.cols)) for f in ("score", "index")
    ]
    return all(torch.equal(p, q) for p, q in pairs)


def race(
    contenders: dict[str, tuple[Callable[[], Any], Callable[[], list[float]]]],
    rounds: int,
    agree: Callable[[Any, Any], bool],
) -> None:
    """Time the contenders in turn and print a table, with ratios to the first, whose answer the others must equal.

    A contender is a pair of functions: its work, and the processor seconds that each of its processes has used so far.
    """
    spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
    for work, _ in contenders.values():  # warm-up, with compilation
        work()
    for _ in range(rounds):
        answers = {}
        for name, (work, clocks) in contenders.items():
            before, start = clocks(), time.perf_counter()
            answers[name] = work()
            wall = time.perf_counter() - start
            used = [b - a for a, b in zip(before, clocks(), strict=True)]
            spent[name].append((wall, sum(used), max(used)))
        first = next(iter(answers.values()))
        assert all(agree(first, answer) for answer in answers.values())
    base = [each[1] for each in next(iter(spent.values()))]
    print("| | wall | processor, all | / 1 thread | processor, busiest | / 1 thread |\n|---|---:|---:|---:|---:|---:|")
    for name, each in spent.items():
        wall, whole, busiest = (statistics.median(x[i] for x in each) for i in range(3))
        ratios = [statistics.median(x[i] / b for x, b in zip(each, base, strict=True)) for i in (1, 2)]
        print(f"| {name} | {wall:.2f} | {whole:.2f} | {ratios[0]:.2f} | {busiest:.2f} | {ratios[1]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=12_288)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    a, b = (sae_like(options.n, options.d, seed) for seed in (1, 2))
    runs = [sg.Dictionary.from_decoder(sae_like(1536, 256, s), latent_axis=0, name=f"seed{s}") for s in range(5)]
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with ExitStack() as stack:
        runners = {n: DaskRunner(stack.enter_context(_opened(f"local:{n}"))) for n in (1, 2)}

        def swept(k: int, n: int) -> Callable[[], Sweep]:
            def work() -> Sweep:
                with changed(runner=runners.get(n)):
                    return sweep(a, b, k, threads=1)

            return work

        def compared(n: int) -> Callable[[], str]:
            def work() -> str:
                with changed(runner=runners.get(n)):
                    return json.dumps(sg.seeds(runs, matching="greedy").summary())

            return work

        def clocks(n: int) -> Callable[[], list[float]]:
            def read() -> list[float]:
                there = runners[n].client.run(time.process_time).values() if n else ()
                return [time.process_time(), *there]

            return read

        names = {0: "in process, 1 thread", 1: "1 worker", 2: "2 workers"}
        for k in (1, 16):
            print(f"\nsweep {options.n:,} × {options.n:,} × {options.d}, both directions, top-{k}\n")
            race({name: (swept(k, n), clocks(n)) for n, name in names.items()}, options.rounds, same)
        print("\nseeds: 10 pairs of 1,536 × 256, greedy, with chance\n")
        race({name: (compared(n), clocks(n)) for n, name in names.items()}, options.rounds, str.__eq__)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
