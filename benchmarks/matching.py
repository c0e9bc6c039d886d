"""Time one-to-one matchings, relative to scipy's dense solver and lapx, or alone at sizes that those cannot handle.

    python benchmarks/matching.py                    # 2k, 4k, 8k and the dense solvers
    python benchmarks/matching.py --ours 16384x768 46080x768 --threads 2
    python benchmarks/matching.py --ours 131072x512  # takes minutes and over 1 GB

Peers get the finished score matrix, and only their solver is timed. Our time includes the sweeps, and is also given as
a multiple of one top-1 sweep of the same tensors. Repetitions are interleaved (A B C A B C …), and results are medians.
Peak memory is the highest resident memory during our matching, minus that before it (both tensors).
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_geometry.kernels.sweep import sweep
from sae_geometry.matching import Assignment, match, verify


def sae_like(n: int, m: int, d: int, seed: int = 0, shared: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two dictionaries of clusters of about eight in an anisotropic space; a share of their latents are twins.

    The noise of a shared direction is drawn per latent, from zero to as large as the direction itself, so that cosines
    of shared pairs fill 0.7…1. The other latents have neighbors in their cluster but no twin.
    """
    g = torch.Generator().manual_seed(seed)
    spread = torch.exp(-1.5 * torch.arange(d) / d)
    centers = torch.randn(max(n, m) // 8, d, generator=g)

    def rows(count: int) -> torch.Tensor:
        return (
            centers[torch.randint(len(centers), (count,), generator=g)] + torch.randn(count, d, generator=g)
        ) * spread

    a, b = rows(n), rows(m)
    twins = int(shared * min(n, m))
    of_a, of_b = torch.randperm(n, generator=g)[:twins], torch.randperm(m, generator=g)[:twins]
    b[of_b] = a[of_a] + torch.rand(twins, 1, generator=g) * torch.randn(twins, d, generator=g) * spread
    return torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)


def seconds(job: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall time and the result of a job."""
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def memory_mb(field: str) -> float:
    """Return resident memory in MB, now (VmRSS) or at its peak since `forget_peak` (VmHWM); Linux only."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Reset VmHWM to the current resident memory."""
    Path("/proc/self/clear_refs").write_text("5")


def warm_up(threads: int) -> None:
    """Compile functions that are compiled on first use."""
    for n, m in ((300, 300), (300, 400)):
        a, b = sae_like(n, m, 16)
        sweep(a, b, 1, threads=threads)
        verify(a, b, match(a, b, "optimal"))


def against_peers(n: int, d: int, threads: int, repeats: int) -> None:
    """Print the time of our whole matching of n × n and of the peers' solvers alone."""
    from scipy.optimize import linear_sum_assignment

    lap: Any = importlib.import_module("lap") if importlib.util.find_spec("lap") else None
    a, b = sae_like(n, n, d)
    score = (a.double() @ b.double().T).numpy()
    jobs: dict[str, Callable[[], object]] = {
        "sweep": lambda: sweep(a, b, 1, threads=threads),
        "ours": lambda: match(a, b, "optimal"),
        "greedy": lambda: match(a, b, "greedy"),
        "scipy": lambda: linear_sum_assignment(score, maximize=True),
    }
    if lap is not None:
        jobs["lapx"] = lambda: lap.lapjv(1.0 - score)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    last: dict[str, object] = {}
    for _ in range(repeats):
        for name, job in jobs.items():
            took, last[name] = seconds(job)
            times[name].append(took)
    median = {name: statistics.median(t) for name, t in times.items()}
    ours, greedy = last["ours"], last["greedy"]
    assert isinstance(ours, Assignment)
    assert isinstance(greedy, Assignment)
    scipys: Any = last["scipy"]
    rows, cols = scipys
    exact = float(score[rows, cols].sum())
    c = ours.certificate
    assert c is not None
    print(f"n={n} d={d} threads={threads} repeats={repeats}")
    print("  " + "  ".join(f"{name} {t:.3f} s" for name, t in median.items()))
    print(f"  ours / scipy's solver {median['ours'] / median['scipy']:.3f}"
          + (f", ours / lapx's solver {median['ours'] / median['lapx']:.3f}" if lap is not None else "")
          + f", ours / one sweep {median['ours'] / median['sweep']:.2f}")  # fmt: skip
    print(f"  value − scipy's {ours.total - exact:+.2e}, same partners {np.mean(ours.partner[rows] == cols):.4f}, "
          f"gap {c.gap:.1e} (relative {c.relative_gap:.1e}), rounds {c.rounds}, edges/row {c.edges_per_row:.1f}, "
          f"solver {c.solver_seconds:.3f} s, swept {c.sweeps:.2f}, greedy/optimal {greedy.total / ours.total:.4f}",
          flush=True)  # fmt: skip


def ours_alone(n: int, d: int, threads: int, repeats: int) -> None:
    """Print the time of our matching of n × n, at a size for which a dense solver has no memory."""
    a, b = sae_like(n, n, d)
    forget_peak()
    held = memory_mb("VmRSS")
    one, plain, whole, result = [], [], [], None
    for _ in range(repeats):
        took, result = seconds(lambda: match(a, b, "optimal"))
        whole.append(took)
        if len(whole) == 1:
            above = memory_mb("VmHWM") - held
        took, found = seconds(lambda: sweep(a, b, 1, threads=threads))
        one.append(took)
        plain.append(seconds(lambda: sweep(a, b, 1, threads=threads, screen="cpu"))[0])
    assert isinstance(result, Assignment)
    c = result.certificate
    assert c is not None
    proof = verify(a, b, result)
    print(f"n={n} d={d} threads={threads} repeats={repeats}")
    sweep_s, whole_s = statistics.median(one), statistics.median(whole)
    plain_s = statistics.median(plain)
    print(f"  all {whole_s:.2f} s, of it solver {c.solver_seconds:.2f} s; one top-1 sweep {sweep_s:.2f} s "
          f"({found.report.screen}), {plain_s:.2f} s (cpu-float32): {whole_s / sweep_s:.2f} and "
          f"{whole_s / plain_s:.2f} sweeps")  # fmt: skip
    print(f"  gap {c.gap:.1e} (relative {c.relative_gap:.1e}; recomputed {proof.gap:.1e}), certified {c.certified}, "
          f"rounds {c.rounds}, edges/row {c.edges_per_row:.1f}, swept {c.sweeps:.2f} × n²")  # fmt: skip
    print(f"  mean cosine {result.total / n:.4f}, peak memory above the inputs {above:.0f} MB "
          f"(inputs {2 * n * d * 4 / 2**20:.0f} MB)", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="*", default=None, metavar="NxD", help="sizes to compare with scipy and lapx")
    parser.add_argument("--ours", nargs="*", default=None, metavar="NxD", help="sizes for our matching alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warm_up(args.threads)
    peers = ["2048x256", "4096x256", "8192x256"] if args.peers is None and args.ours is None else args.peers or []
    for job, sizes in ((against_peers, peers), (ours_alone, args.ours or [])):
        for size in sizes:
            n, d = map(int, size.split("x"))
            job(n, d, args.threads, args.repeats)


if __name__ == "__main__":
    main()
