"""Model and simulate a comparison of ten thousand dictionaries, for docs/ten_thousand_dictionaries.md.

    python benchmarks/ten_thousand.py

The costs come from `cluster_plan`, with the rates below as assumptions. The simulation compares a sketch of a pair (the
mean max cosine of a random sample of rows) with the mean over all rows, on SAE-like dictionaries.
"""

from __future__ import annotations

import numpy as np

from sae_geometry.cost.cluster_model import Pass, cluster_plan

N_DICTIONARIES, N_LATENTS, D_IN = 10_000, 1_000_000, 4096
RATE = 2e14  # multiplications per second of one accelerator; assumed, about half of a data sheet's fp16 peak
BANDWIDTH = 12.5e9  # bytes per second; assumed, a link of 100 Gbit/s
YEAR = 365 * 24 * 3600.0


def like(rng: np.random.Generator, shared: np.ndarray, share: float) -> np.ndarray:
    """Return unit rows; a share of them are near rows of `shared`."""
    n = len(shared)
    rows = rng.standard_normal(shared.shape)
    rows[: int(share * n)] = shared[: int(share * n)] + 0.6 * rows[: int(share * n)]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def simulate() -> None:
    """Print the error of sketches by the share of latents that a pair has in common."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((2048, 128))
    print("share common | MMCS | error of 32 rows | of 128 rows | of 512 rows (root mean square of 200 sketches)")
    for share in (0.0, 0.25, 0.5, 1.0):
        a, b = like(rng, shared, share), like(rng, shared, share)
        best = (a @ b.T).max(axis=1)
        errors = [
            np.sqrt(np.mean([(rng.choice(best, s, replace=False).mean() - best.mean()) ** 2 for _ in range(200)]))
            for s in (32, 128, 512)
        ]
        print(f"{share:.2f} | {best.mean():.3f} | " + " | ".join(f"{e:.4f}" for e in errors))


def model() -> None:
    """Print the cost of all pairs, of sketches of all pairs, and of the pairs that pass a sketch."""
    pairs = N_DICTIONARIES * (N_DICTIONARIES - 1) // 2
    one = cluster_plan(
        [Pass(0, 1, N_LATENTS, N_LATENTS)], D_IN, n_dictionaries=2, workers=1, rate=RATE, bandwidth=BANDWIDTH
    )
    print(f"one pair: {one.multiplications:.3g} multiplications, {one.seconds_arithmetic:.1f} s of one accelerator, "
          f"{one.bytes_sent / 1e9:.1f} GB moved in {one.seconds_network:.1f} s, "
          f"limited by the network from {one.most_workers} workers on")  # fmt: skip
    print(f"stored as float32: {4.0 * N_DICTIONARIES * N_LATENTS * D_IN / 1e12:.0f} TB")
    print(f"all {pairs:,} pairs: {pairs * one.seconds_arithmetic / YEAR:.1f} accelerator years, "
          f"{pairs * one.bytes_sent / 1e15:.0f} PB if each pair fetches both sides")  # fmt: skip
    for rows in (128, 512, 4096):
        cost = pairs * one.seconds_arithmetic * rows / N_LATENTS
        print(
            f"a sketch of {rows} rows of one against all of the other, every pair: {cost / 3600:.0f} accelerator hours"
        )
    for kept in (0.001, 0.01, 0.1):
        print(f"full comparison of the {kept:.1%} of pairs that pass a sketch: "
              f"{kept * pairs * one.seconds_arithmetic / YEAR:.2f} accelerator years")  # fmt: skip


if __name__ == "__main__":
    model()
    simulate()
