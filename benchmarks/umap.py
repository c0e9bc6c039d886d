"""Time UMAP's stages and umap-learn's own pipeline on the same points, and measure the quality of each layout.

umap-learn runs as its users run it: cosine, seeded (and therefore on one thread), with its own approximate neighbors.
Our pipeline has exact neighbors, umap-learn's weights, our start and optimizer, a seed, and the same number of epochs.
Quality is measured the same way for all: against exact neighbors, on every point at k = 15 and on 1,000 at k = 50.
Every contender is compiled on a small case first; contenders run in turn, round after round, and medians are reported.

    python benchmarks/umap.py                       # 20,000 × 768, SAE-like
    python benchmarks/umap.py --n 50000 --rounds 1 --json results.json
    python benchmarks/umap.py --engines             # other packages too, if installed
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[0] = str(Path(__file__).parent.parent)  # This file must not shadow the package `umap`.
warnings.filterwarnings("ignore")

from sae_geometry.embedding.neighbors import Neighbors, joint_neighbors
from sae_geometry.embedding.optimizer import (
    boxed,
    curve_of,
    epochs_for,
    fuzzy_weights,
    import_umap,
    optimize,
    spectral_start,
)
from sae_geometry.embedding.quality import measure_evidence

STAGES = ("neighbors", "weights", "start", "optimizer")


@dataclass(frozen=True)
class Row:
    """One contender's line: medians of seconds by stage, and the quality of its first layout."""

    name: str
    wall: float
    cpu: float
    stages: dict[str, float]
    neighbors_right: float
    trustworthiness: tuple[float, float]
    preservation: tuple[float, float]
    mixing: float


class Clock:
    """Seconds of processor time by stage, summed over threads, which other load on the machine affects little."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body of a `with` statement."""
        start = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


def make_points(n: int, d: int) -> list[torch.Tensor]:
    """Return two SAE-like dictionaries of n / 2 directions with small clusters and a common mean; 60 % are shared."""
    spec = importlib.util.spec_from_file_location("sweep_benchmark", Path(__file__).parent / "sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return list(module.make_data("sae", n // 2, d))


def ours(parts: list[torch.Tensor], threads: int, epochs: int, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
    """Run our pipeline; return the layout and its neighbors."""
    torch.set_num_threads(threads)
    with clock.stage("neighbors"):
        graph = joint_neighbors(parts, 16)[0].first(15)
    with clock.stage("weights"):
        weights = fuzzy_weights(graph)
    with clock.stage("start"):
        start = boxed(spectral_start(weights), 0)
    with clock.stage("optimizer"):
        placed = optimize(weights, start, curve_of(0.1), n_epochs=epochs, seed=0, threads=threads)
    return placed, graph.indices


def umap_learn(points: np.ndarray, init: str, epochs: int, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
    """Run umap-learn's pipeline with its stages timed; return the layout and its neighbors."""
    module = import_umap()
    names = {
        "nearest_neighbors": "neighbors",
        "fuzzy_simplicial_set": "weights",
        "spectral_layout": "start",
        "optimize_layout_euclidean": "optimizer",
    }
    before = {name: getattr(module, name) for name in names}

    def timed(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with clock.stage(names[name]):
                return before[name](*args, **kwargs)

        return call

    try:
        for name in names:
            setattr(module, name, timed(name))
        reducer = module.UMAP(
            metric="cosine", random_state=0, n_epochs=epochs, init=init, force_approximation_algorithm=True
        )
        placed = reducer.fit_transform(points)
    finally:
        for name, function in before.items():
            setattr(module, name, function)
    return np.asarray(placed), np.asarray(reducer._knn_indices)


def engines(points: np.ndarray, graph: Neighbors, epochs: int) -> dict[str, Callable[[Clock], tuple[Any, Any]]]:
    """Return other packages' layouts, given our exact neighbors if they accept them."""
    found: dict[str, Callable[[Clock], tuple[Any, Any]]] = {}
    n = len(points)

    def fastumap(clock: Clock) -> tuple[Any, Any]:
        from fastumap import umap_project

        with clock.stage("all after neighbors"):
            return umap_project(
                points, 2, metric="cosine", n_epochs=epochs, random_state=0,
                precomputed_knn=(graph.indices, graph.distances.astype(np.float64)),
            ), None  # fmt: skip

    def open_tsne(clock: Clock) -> tuple[Any, Any]:
        from openTSNE import TSNEEmbedding, affinity, initialization, nearest_neighbors

        with clock.stage("all after neighbors"):
            near = nearest_neighbors.PrecomputedNeighbors(graph.indices[:, 1:], graph.distances[:, 1:])
            alike = affinity.PerplexityBasedNN(perplexity=14 / 3, knn_index=near, random_state=0)
            made = TSNEEmbedding(initialization.pca(points, random_state=0), alike, random_state=0, n_jobs=1)
            made.optimize(250, exaggeration=12, momentum=0.5, inplace=True)
            made.optimize(500, momentum=0.8, inplace=True)
            return np.asarray(made), None

    def pacmap(clock: Clock) -> tuple[Any, Any]:
        import pacmap as module

        with clock.stage("all"):
            return module.PaCMAP(n_neighbors=15, distance="angular", random_state=0).fit_transform(points), None

    def torchdr(clock: Clock) -> tuple[Any, Any]:
        import torchdr as module

        with clock.stage("all"):
            reducer = module.UMAP(
                n_neighbors=15, max_iter=epochs, random_state=0, backend=None, init="pca", device="cpu"
            )  # Squared distances of unit rows are ordered as their cosines are.
            return np.asarray(reducer.fit_transform(points)), None

    for package, run in (("fastumap", fastumap), ("openTSNE", open_tsne), ("pacmap", pacmap), ("torchdr", torchdr)):
        if importlib.util.find_spec(package):
            found[package] = run
    assert n == len(graph.indices)
    return found


def recall(found: np.ndarray | None, exact: np.ndarray) -> float:
    """Return the share of the exact neighbors, without the point itself, that were found."""
    if found is None:
        return 1.0
    k = found.shape[1]
    return float(np.mean([len(np.intersect1d(a, b)) - 1 for a, b in zip(found, exact[:, :k], strict=True)]) / (k - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--epochs", type=int, help="default: UMAP's own choice")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1], help="numbers of threads for our pipeline"
    )
    parser.add_argument(
        "--init", nargs="+", default=["spectral", "pca"], help="umap-learn's starts; spectral is its default"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", action="store_true", help="also time other packages")
    parser.add_argument("--only-engines", action="store_true", help="time other packages, but not umap-learn")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    parts = make_points(args.n, args.d)
    points = torch.cat(parts)
    n, epochs = len(points), args.epochs or epochs_for(len(points))
    load = os.getloadavg()[0]
    exact = joint_neighbors(parts, 16)[0]
    owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    few = [p[:1500] for p in parts]
    contenders: dict[str, Callable[[Clock], tuple[Any, Any]]] = {}
    for threads in dict.fromkeys(args.threads):
        contenders[f"ours, {threads} thread(s)"] = lambda clock, t=threads: ours(parts, t, epochs, clock)
    if not args.only_engines:
        for init in args.init:
            contenders[f"umap-learn, init {init}"] = lambda clock, i=init: umap_learn(points.numpy(), i, epochs, clock)
    if args.engines or args.only_engines:
        contenders |= engines(points.numpy(), exact.first(15), epochs)
    ours(few, 1, 5, Clock())
    if not args.only_engines:
        umap_learn(torch.cat(few).numpy(), "spectral", 5, Clock())
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    first: dict[str, tuple[Any, Any]] = {}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            clock, start, start_cpu = Clock(), time.perf_counter(), time.process_time()
            try:
                answer = run(clock)
            except Exception as error:  # A peer's failure is a result, too.
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                continue
            walls[name].append(time.perf_counter() - start)
            cpus[name].append(time.process_time() - start_cpu)
            stages[name].append(clock.seconds)
            first.setdefault(name, answer)
            print(f"{name}: {walls[name][-1]:.1f} s", file=sys.stderr, flush=True)
    rows = []
    for name, (placed, found) in first.items():
        e = measure_evidence(points, exact.first(16), np.ascontiguousarray(placed, np.float32), owner, seed=0)
        medians = {s: statistics.median(m[s] for m in stages[name]) for s in stages[name][0]}
        rows.append(
            Row(
                name, statistics.median(walls[name]), statistics.median(cpus[name]), medians,
                recall(found, exact.indices), (e.trustworthiness, e.trustworthiness_wide),
                (e.neighbor_preservation, e.neighbor_preservation_wide), e.mixing_picture,
            )
        )  # fmt: skip
    print(f"sae, {n:,} × {args.d}, {epochs} epochs, median of {args.rounds}; load before {load:.2f}\n")
    print(
        "| | wall s | CPU s | " + " | ".join(STAGES) + " | neighbors right | trustworthiness 15, 50 | kept 15, 50 |"
        " mixing |\n|---|---:|---:|" + "---:|" * len(STAGES) + "---:|---:|---:|---:|"
    )  # fmt: skip
    for row in rows:
        spent = " | ".join(f"{row.stages[s]:.2f}" if s in row.stages else "" for s in STAGES)
        print(
            f"| {row.name} | {row.wall:.2f} | {row.cpu:.2f} | {spent} | {row.neighbors_right:.1%} | "
            f"{row.trustworthiness[0]:.3f}, {row.trustworthiness[1]:.3f} | "
            f"{row.preservation[0]:.1%}, {row.preservation[1]:.1%} | {row.mixing:.1%} |"
        )
    if args.json:
        out = {"n": n, "d": args.d, "epochs": epochs, "load_before": load, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
