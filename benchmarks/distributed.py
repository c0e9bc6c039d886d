"""Times a sweep, and the pairs of several seeds, in this process and on one and two Dask workers.

The contenders take turns, round after round, in one process; what is printed is the median wall time and the median of
its ratio to the single thread of the same round. A worker has one thread, so that "1 worker" beside "in process, 1
thread" is the overhead of sending, scheduling and merging, and "2 workers" beside it the speed-up. Answers are compared
to the bit. The machine's load before and after is printed: it is often shared.

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

sys.path = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]  # we are not `distributed`

import torch

import sae_geometry as sg
from sae_geometry.executor.dask_runner import DaskRunner
from sae_geometry.executor.opening import _opened
from sae_geometry.kernels.runner import sweeps_run_by
from sae_geometry.kernels.sweep import Sweep, sweep


def sae_like(n: int, d: int, seed: int) -> torch.Tensor:
    """Unit rows, two thirds of them near directions that every seed shares."""
    shared = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    own = torch.randn(n, d, generator=torch.Generator().manual_seed(seed + 1))
    mix = torch.where(torch.arange(n)[:, None] % 3 > 0, shared + 0.6 * own, own)
    return torch.nn.functional.normalize(mix[torch.randperm(n, generator=torch.Generator().manual_seed(seed))], dim=1)


def same(x: Sweep, y: Sweep) -> bool:
    """To the bit."""
    assert x.cols is not None
    assert y.cols is not None
    pairs = [
        (getattr(p, f), getattr(q, f)) for p, q in ((x.rows, y.rows), (x.cols, y.cols)) for f in ("score", "index")
    ]
    return all(torch.equal(p, q) for p, q in pairs)


def race(contenders: dict[str, Callable[[], Any]], rounds: int, agree: Callable[[Any, Any], bool]) -> None:
    """Everybody in turn; the first is what ratios are to, and what the others must equal."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():  # compiled and warm
        work()
    for _ in range(rounds):
        answers = {}
        for name, work in contenders.items():
            start = time.perf_counter()
            answers[name] = work()
            times[name].append(time.perf_counter() - start)
        first = next(iter(answers.values()))
        assert all(agree(first, answer) for answer in answers.values())
    base = next(iter(times.values()))
    print("| | seconds | / 1 thread |\n|---|---:|---:|")
    for name, spent in times.items():
        ratio = statistics.median(t / b for t, b in zip(spent, base, strict=True))
        print(f"| {name} | {statistics.median(spent):.2f} | {ratio:.2f} |")


def main() -> None:
    """Run everything and print tables."""
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
                with sweeps_run_by(runners.get(n)):
                    return sweep(a, b, k, threads=1)

            return work

        def compared(n: int) -> Callable[[], str]:
            def work() -> str:
                with sweeps_run_by(runners.get(n)):
                    return json.dumps(sg.compare_seeds(runs, matching="greedy").summary())

            return work

        names = {0: "in process, 1 thread", 1: "1 worker", 2: "2 workers"}
        for k in (1, 16):
            print(f"\nsweep {options.n:,} × {options.n:,} × {options.d}, both directions, top-{k}\n")
            race({name: swept(k, n) for n, name in names.items()}, options.rounds, same)
        print("\nseeds: 10 pairs of 1,536 × 256, greedy, with chance\n")
        race({name: compared(n) for n, name in names.items()}, options.rounds, str.__eq__)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
