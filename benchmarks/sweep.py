"""Time the exact sweep relative to the float32 product alone (the limit) and to other ways to find best partners.

All contenders run in turn, round after round, in one process. Printed are the median time, its ratio to the limit
(`torch.mm` over blocks, results overwritten) of the same round, the memory used, and the share of 256 sampled rows
whose partners agree with float64. With one thread the time is processor time, which other load on the machine affects
little. With several threads, or several numbers of threads, which take turns in every round, it is wall time. Peers
that are not installed are named and left out.

    python benchmarks/sweep.py                              # 16,384 × 16,384 × 768, SAE-like, one thread
    python benchmarks/sweep.py --data iid --threads 1 2 --json results.json
    python benchmarks/sweep.py --memory-at 131072           # peak memory of one large sweep, in a fresh process
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae_geometry.kernels.exact import exact_dots
from sae_geometry.kernels.screens.products import Product, cpu_product, full_precision, mm_product
from sae_geometry.kernels.sweep import sweep

BLOCK_ROWS, BLOCK_COLS = 1024, 2048
SAMPLE = 256

Answer = Tensor | None
"""Partners, int64 [n, k]; None if a contender finds none, such as a product alone."""


@dataclass(frozen=True)
class Row:
    """One contender's line of the table."""

    name: str
    seconds: float
    ratio: float
    memory_mb: float
    agreement: float | None
    note: str
    threads: int
    gain: float | None  # time on the first number of threads, relative to this one


def unit(x: Tensor) -> Tensor:
    """Return the rows scaled to unit length."""
    return torch.nn.functional.normalize(x, dim=1)


def make_data(kind: str, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Return two dictionaries: independent directions, SAE-like ones, or the demo pair (in its own shape)."""
    g = torch.Generator().manual_seed(0)
    if kind == "iid":
        return unit(torch.randn(n, d, generator=g)), unit(torch.randn(n, d, generator=g))
    # Clusters of about eight, 60 % shared up to noise, and a common mean.
    if kind == "sae":
        centers = torch.randn(n // 8, d, generator=g)
        mean = 0.5 * torch.randn(d, generator=g)
        a = torch.randn(n, d, generator=g) + centers[torch.randint(n // 8, (n,), generator=g)] + mean
        b = a + 0.5 * torch.randn(n, d, generator=g)
        fresh = torch.rand(n, generator=g) > 0.6
        b[fresh] = torch.randn(int(fresh.sum()), d, generator=g) + mean
        return unit(a), unit(b[torch.randperm(n, generator=g)])
    from sae_geometry.sources import load

    return load("demo:local-seed0").directions, load("demo:local-seed1").directions


def product_alone(a: Tensor, b: Tensor, product: Product) -> None:
    """Compute every block of the product, each overwritten by the next. This is the limit."""
    scratch = torch.empty(BLOCK_ROWS * BLOCK_COLS)
    with full_precision():
        for rows in a.split(BLOCK_ROWS):
            for cols in b.split(BLOCK_COLS):
                product(rows, cols, scratch)


def whole_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Form the whole similarity matrix, and return the indices of its row maxima."""
    return (a @ b.T).max(dim=1, keepdim=True).indices


def blocks_with_max(a: Tensor, b: Tensor) -> Tensor:
    """Take torch's `max` of blocks of the similarity matrix, and merge the results."""
    best, index = torch.full((len(a),), -torch.inf), torch.zeros(len(a), dtype=torch.int64)
    for i0 in range(0, len(a), BLOCK_ROWS):
        rows = slice(i0, i0 + BLOCK_ROWS)
        for j0 in range(0, len(b), BLOCK_COLS):
            value, at = (a[rows] @ b[j0 : j0 + BLOCK_COLS].T).max(dim=1)
            better = value > best[rows]
            best[rows] = torch.where(better, value, best[rows])
            index[rows] = torch.where(better, at + j0, index[rows])
    return index[:, None]


def faiss_search(a: Tensor, b: Tensor, k: int, threads: int) -> Tensor:
    """Search exhaustively for the largest inner products with faiss."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(a.shape[1])
    index.add(b.numpy())
    return torch.from_numpy(index.search(a.numpy(), k)[1])


def sklearn_argkmin(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Search with scikit-learn in blocks. Squared distances of unit rows are ordered as their cosines are."""
    from sklearn.metrics._pairwise_distances_reduction import ArgKmin

    found = ArgKmin.compute(a.numpy(), b.numpy(), k=k, metric="sqeuclidean", return_distance=False)
    return torch.from_numpy(found.astype(np.int64))


def contenders(a: Tensor, b: Tensor, threads: int, peers: bool) -> dict[str, Callable[[], Answer]]:
    """Return the functions to time, by name, in order."""
    fast, fast_name = cpu_product()

    def ours(k: int = 1, screen: str = "auto", within: bool = False, columns: bool = False) -> Callable[[], Answer]:
        def run() -> Answer:
            other = None if within else b
            found = sweep(a, other, k, screen=screen, columns=columns, threads=threads)  # type: ignore[arg-type]
            notes[label] = found.report.screen
            return found.rows.index

        label = f"ours, {'within' if within else 'both directions' if columns else f'top-{k}'}, {screen}"
        runs[label] = run
        return run

    runs: dict[str, Callable[[], Answer]] = {
        "torch.mm alone (the limit)": lambda: product_alone(a, b, mm_product),
        f"{fast_name} alone": lambda: product_alone(a, b, fast),
    }
    for screen in ("cpu", "auto"):
        ours(1, screen)
        ours(1, screen, columns=True)
        ours(1, screen, within=True)
        ours(16, screen)
    if peers:
        runs["whole matrix, then max"] = lambda: whole_matrix(a, b)
        runs["torch blocks + max"] = lambda: blocks_with_max(a, b)
        if importlib.util.find_spec("faiss"):
            runs["faiss IndexFlatIP, top-1"] = lambda: faiss_search(a, b, 1, threads)
            runs["faiss IndexFlatIP, top-16"] = lambda: faiss_search(a, b, 16, threads)
        if importlib.util.find_spec("sklearn"):
            runs["sklearn ArgKmin, top-1"] = lambda: sklearn_argkmin(a, b, 1)
    return runs


notes: dict[str, str] = {}


def peak_of(run: Callable[[], Answer]) -> tuple[Answer, float]:
    """Return a call's result and the peak of resident memory that it added, in MB, sampled every two milliseconds."""
    page, done, peak = os.sysconf("SC_PAGE_SIZE"), threading.Event(), 0
    statm = Path("/proc/self/statm")

    def resident() -> int:
        return int(statm.read_text().split()[1]) * page

    before = resident()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answer = run()
    finally:
        done.set()
        watcher.join()
    return answer, peak / 1e6


def truth(a: Tensor, b: Tensor, k: int, *, within: bool = False) -> tuple[Tensor, Tensor]:
    """Return sampled rows and their k best partners by the exact score; `within` excludes the row itself."""
    rows = torch.linspace(0, len(a) - 1, min(SAMPLE, len(a))).round().to(torch.int64)
    every = torch.arange(len(b))
    best = []
    for row in rows.tolist():
        score = exact_dots(a, b, torch.full_like(every, row), every)
        if within:
            score[row] = -torch.inf
        best.append(score.argsort(descending=True, stable=True)[:k])
    return rows, torch.stack(best)


def agreement(found: Tensor, rows: Tensor, best: Tensor) -> float:
    """Return the share of the sampled partners, rank by rank, that are exact."""
    return float((found[rows] == best[:, : found.shape[1]]).double().mean())


def measure(a: Tensor, b: Tensor, threads: list[int], rounds: int, peers: bool) -> list[Row]:
    """Time all contenders on each number of threads, interleaved."""
    runs: dict[tuple[int, str], Callable[[], Answer]] = {}
    for count in threads:
        torch.set_num_threads(count)
        sweep(a[:300], b[:300], threads=count)
        runs |= {(count, name): run for name, run in contenders(a, b, count, peers).items()}
    between, within = truth(a, b, 16), truth(a, a, 1, within=True)

    def timed(count: int, run: Callable[[], Answer]) -> float:
        torch.set_num_threads(count)
        start = clock()
        run()
        return clock() - start

    answers = {}
    for (count, name), run in runs.items():  # warm-up round, not timed
        torch.set_num_threads(count)
        answers[count, name] = peak_of(run)
    clock = time.process_time if threads == [1] else time.perf_counter
    seconds: dict[tuple[int, str], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for (count, name), run in runs.items():
            seconds[count, name].append(timed(count, run))
    table = []
    limit = next(iter(runs))[1]
    for (count, name), times in seconds.items():
        answer, memory = answers[count, name]
        right = None if answer is None else agreement(answer, *(within if "within" in name else between))
        ratio = statistics.median(t / alone for t, alone in zip(times, seconds[count, limit], strict=True))
        first = seconds[threads[0], name]
        gain = None if count == threads[0] else statistics.median(f / t for f, t in zip(first, times, strict=True))
        note = notes.get(name, "")
        table.append(Row(name, statistics.median(times), ratio, memory, right, note, count, gain))
    return table


_ONE_SWEEP = """
import sys, time, torch
from sae_geometry.kernels.sweep import sweep

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6

n, d, threads = (int(v) for v in sys.argv[1:4])
def make(seed):
    x = torch.empty(n, d)
    g = torch.Generator().manual_seed(seed)
    for part in x.split(4096):
        part.normal_(generator=g)
        part /= part.norm(dim=1, keepdim=True)
    return x
a, b = make(0), make(1)
sweep(a[:5000], b[:5000], threads=threads)
before = status("VmRSS")
report = sweep(a, b, threads=threads).report
print(f"{report.screen}: {status('VmHWM') - before:.0f} MB above the inputs, {report.seconds:.1f} s ({report.why})")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["sae", "iid", "demo"], default="sae")
    parser.add_argument("--n", type=int, default=16_384)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="one or several numbers of threads to compare"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="time only the limit and our sweep")
    parser.add_argument("--json", type=Path, help="also write the table here")
    parser.add_argument(
        "--memory-at", type=int, metavar="N", help="only measure the memory of one N × N sweep, in a new process"
    )
    args = parser.parse_args()
    if args.memory_at:
        command = [sys.executable, "-c", _ONE_SWEEP, str(args.memory_at), str(args.d), str(args.threads[0])]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        return
    a, b = make_data(args.data, args.n, args.d)
    load = os.getloadavg()[0]
    table = measure(a, b, args.threads, args.rounds, not args.no_peers)
    shape = f"{a.shape[0]:,} × {b.shape[0]:,} × {a.shape[1]:,}"
    print(f"{args.data}, {shape}, median of {args.rounds}; load before {load:.2f}")
    for count in args.threads:
        gains = count != args.threads[0]
        print(f"\n{count} thread(s)\n\n| | seconds | / limit | memory MB | float64 agrees | screen |", end="")
        print(f" {args.threads[0]} / {count} threads |" if gains else "")
        print("|---|---:|---:|---:|---:|---|" + ("---:|" if gains else ""))
        for row in (r for r in table if r.threads == count):
            right = "" if row.agreement is None else f"{row.agreement:.4f}"
            line = f"| {row.name} | {row.seconds:.3f} | {row.ratio:.2f} | {row.memory_mb:.0f} | {right} | {row.note} |"
            print(line + ("" if row.gain is None else f" {row.gain:.2f} |"))
    missing = [name for name in ("faiss", "sklearn") if not importlib.util.find_spec(name)]
    if missing and not args.no_peers:
        print(f"\nnot installed: {', '.join(missing)}")
    if args.json:
        out = {"data": args.data, "shape": [*a.shape, b.shape[0]], "threads": args.threads, "load_before": load}
        args.json.write_text(json.dumps({**out, "rows": [asdict(row) for row in table]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
