"""Measure the realized false discovery rate and power of `significant` on populations with known truth.

For each population and size, pairs are drawn in which a known share of latents is shared at a known cosine. Printed are
means over draws, for both directions: the share of false discoveries among the significant latents, the share of shared
latents that are significant, and how often the 95 % interval of the share beyond the controls (2 · wins − 1, a lower
bound) begins below the true share.

    python benchmarks/calibration.py                                  # 1,200 × 256, every population
    python benchmarks/calibration.py --size 4096 512 --draws 4
    python benchmarks/calibration.py --size 16384 768 --draws 1 --population "spectrum 1/k"
    python benchmarks/calibration.py --cost 8192 512                  # cost of the controls relative to the sweep
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from populations import POPULATIONS, Pair, pair

from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.nulls import LISTED, Controls, How, beyond_controls, excess, pair_controls, q_values

CASES = ((0.0, 0.0), (0.3, 0.5), (0.3, 0.8), (0.1, 0.8))


@dataclass(frozen=True)
class Outcome:
    """Results for one direction of one draw: share of false discoveries, power, and whether the interval covers."""

    false_share: float
    power: float
    covered: float


def outcome(controls: Controls, shared: np.ndarray, rate: float = 0.05) -> Outcome:
    """Compare the significant latents of one direction with the truly shared ones, bool [n]."""
    w = excess(controls.target[:, 0], controls)
    found = q_values(w, controls.odds) <= rate
    return Outcome(
        float((found & ~shared).sum() / max(1, found.sum())),
        float(found[shared].mean()) if shared.any() else float("nan"),
        float(beyond_controls(w, controls.odds).low <= shared.mean()),
    )


def judged(drawn: Pair, seed: int = 0, rate: float = 0.05) -> tuple[Outcome, Outcome]:
    """Return the outcomes of both directions of a pair. One turn suffices; more would only improve expected means."""
    a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
    forth, back = pair_controls(a, b, listing_sweep(a, b, LISTED), How(seed=seed, turns=1))
    return outcome(forth, drawn.shared_a, rate), outcome(back, drawn.shared_b, rate)


def averaged(
    name: str, sizes: tuple[int, int], d: int, share: float, cosine: float, draws: int
) -> tuple[Outcome, Outcome]:
    """Average the outcomes of several draws, for A → B and B → A."""
    population = POPULATIONS[name](d)
    both = [judged(pair(population, sizes, share, cosine, seed), seed) for seed in range(draws)]
    forth, back = (
        Outcome(*np.mean([[o.false_share, o.power, o.covered] for o in side], axis=0))
        for side in zip(*both, strict=True)
    )
    return forth, back


def cost(n: int, d: int, rounds: int = 3) -> str:
    """Time all controls of a comparison relative to its two-sided sweep, in processor and wall time."""
    drawn = pair(POPULATIONS["spectrum 1/k^.5"](d), (n, n), 0.3, 0.8, 0)
    a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
    pair_controls(a[:500], b[:500], listing_sweep(a[:500], b[:500], LISTED), How())  # compiles on first use
    ratios = []
    for _ in range(rounds):
        clocks = [(time.process_time(), time.perf_counter())]
        swept = listing_sweep(a, b, LISTED)
        clocks.append((time.process_time(), time.perf_counter()))
        pair_controls(a, b, swept, How())
        clocks.append((time.process_time(), time.perf_counter()))
        (p0, w0), (p1, w1), (p2, w2) = clocks
        ratios.append(((p2 - p1) / (p1 - p0), (w2 - w1) / (w1 - w0), p1 - p0))
    processor, wall, seconds = np.median(ratios, axis=0)
    return f"| {n:,} × {d} | {seconds:.1f} s | {processor:.2f} | {wall:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(1200, 256), metavar=("N", "D"))
    parser.add_argument("--wide", type=int, help="latents of B; default: N")
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument(
        "--population", action="append", choices=sorted(POPULATIONS), help="may be repeated; default: all"
    )
    parser.add_argument("--cost", type=int, nargs=2, metavar=("N", "D"))
    options = parser.parse_args()
    if options.cost:
        print(cost(*options.cost))
        return
    n, d = options.size
    m = options.wide or n
    print(f"{n:,} and {m:,} × {d}, {options.draws} draws; false discovery rate / power / covered, nominal 5 %\n")
    print("| population | shared | A → B | B → A |\n|---|---|---|---|")
    for name in options.population or POPULATIONS:
        for share, cosine in CASES:
            sides = averaged(name, (n, m), d, share, cosine, options.draws)
            cells = " | ".join(f"{o.false_share:.3f} / {o.power:.2f} / {o.covered:.2f}" for o in sides)
            print(f"| {name} | {share:.0%} at {cosine} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
