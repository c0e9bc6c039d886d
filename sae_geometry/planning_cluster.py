"""What a question would cost on M workers: arithmetic against network, by a model of what the Dask runner does.

A sweep of n × m latents of width d takes n·m·d multiplications, shared out evenly. Every worker is sent both operands
whole (4·d bytes a latent) and sends back the lists of its tiles (12 bytes a partner: a row's from its tile, a column's
from every tile). Arithmetic falls with the number of workers and what goes through the network grows with it, so there
is a number beyond which more workers make it slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TILES_A_WORKER = 4
KEPT = 1 << 30  # bytes of operands that stay on a worker for the next sweep
PARTNER = 12  # bytes of a partner on its way back
_LISTED = 100  # bytes that a listed partner takes while it is found
_ASIDE = 512 << 20  # bytes of a worker before any work: Python, torch, the compiled loops
_MOST_WORKERS = 1 << 20


@dataclass(frozen=True)
class ClusterPlan:
    """A question on a cluster, by the model.

    Attributes:
        n_dictionaries, n_passes, workers: how many dictionaries, sweeps over a similarity matrix, workers.
        multiplications: of all passes together.
        bytes_sent, bytes_back: operands to the workers, lists from them.
        memory_a_worker: bytes that one worker needs.
        seconds_arithmetic, seconds_network: how long either alone would take.
        limited_by: "arithmetic" or "network", whichever is longer.
        most_workers: where the network begins to be the longer of the two; None if not below a million workers.
    """

    n_dictionaries: int
    n_passes: int
    workers: int
    multiplications: float
    bytes_sent: float
    bytes_back: float
    memory_a_worker: float
    seconds_arithmetic: float
    seconds_network: float
    limited_by: str
    most_workers: int | None

    def __str__(self) -> str:
        beyond = (
            "the network never limits it below a million workers"
            if self.most_workers is None
            else f"from {self.most_workers:,} workers on the network is the limit"
        )
        return "\n".join(
            [
                f"{self.workers:,} workers (by a model, see docs/ten_thousand_dictionaries.md):",
                f"  passes       {self.n_passes:,} over {self.n_dictionaries:,} dictionaries",
                f"  moved        {self.bytes_sent / 1e9:.3g} GB to the workers, {self.bytes_back / 1e9:.3g} GB back",
                f"  memory       {self.memory_a_worker / 2**30:.2f} GiB a worker",
                f"  time         {self.seconds_arithmetic:.3g} s arithmetic, {self.seconds_network:.3g} s network",
                f"  limited by   {self.limited_by}; {beyond}",
            ]
        )


def cluster_plan(
    passes: Sequence[tuple[int, int]],
    d_in: int,
    k: int,
    *,
    n_dictionaries: int,
    workers: int,
    rate: float,
    bandwidth: float,
) -> ClusterPlan:
    """The cost of these passes on so many workers.

    Args:
        passes: (n, m) latents of each sweep.
        d_in: the width.
        k: partners listed of each latent.
        n_dictionaries: that the passes are made of.
        workers: how many.
        rate: multiplications a second of one worker, from a probe on one.
        bandwidth: bytes a second that the client's link carries.

    Raises:
        ValueError: no passes, or a number that is not positive.

    Example:
        >>> plan = cluster_plan([(1000, 1000)], 64, 1, n_dictionaries=2, workers=2, rate=1e9, bandwidth=1e9)
        >>> plan.multiplications, plan.bytes_sent, plan.limited_by
        (64000000.0, 1024000.0, 'arithmetic')
    """
    if not passes or min(workers, rate, bandwidth, d_in, k, n_dictionaries) <= 0:
        raise ValueError("a plan needs at least one pass, and workers, rate, bandwidth, width and k above zero")
    multiplications = float(sum(n * m for n, m in passes)) * d_in
    arithmetic, network = _seconds(passes, d_in, k, workers, rate, bandwidth)
    largest = max(passes, key=lambda p: p[0] * p[1])
    tiles = TILES_A_WORKER * workers
    operands = 4.0 * d_in * (largest[0] + largest[1])
    lists = _LISTED * (k + 8) * (largest[0] / tiles + largest[1])
    return ClusterPlan(
        n_dictionaries=n_dictionaries,
        n_passes=len(passes),
        workers=workers,
        multiplications=multiplications,
        bytes_sent=_sent(passes, d_in, workers),
        bytes_back=_back(passes, k, workers),
        memory_a_worker=_ASIDE + max(operands, min(KEPT, _once(passes, d_in))) + lists,
        seconds_arithmetic=arithmetic,
        seconds_network=network,
        limited_by="arithmetic" if arithmetic >= network else "network",
        most_workers=_crossing(passes, d_in, k, rate, bandwidth),
    )


def _once(passes: Sequence[tuple[int, int]], d_in: int) -> float:
    """Bytes of every operand, were each dictionary as large as the largest and sent once: an upper bound."""
    return 4.0 * d_in * max(max(p) for p in passes) * (1 + len(passes))


def _sent(passes: Sequence[tuple[int, int]], d_in: int, workers: int) -> float:
    """Both operands of the first pass; of the others the second alone, the first being still there; to every worker."""
    latents = passes[0][0] + sum(m for _, m in passes)
    return 4.0 * d_in * latents * workers


def _back(passes: Sequence[tuple[int, int]], k: int, workers: int) -> float:
    tiles = TILES_A_WORKER * workers
    return float(PARTNER * k * sum(n + m * min(tiles, n) for n, m in passes))


def _seconds(
    passes: Sequence[tuple[int, int]], d_in: int, k: int, workers: int, rate: float, bandwidth: float
) -> tuple[float, float]:
    arithmetic = sum(float(n) * m for n, m in passes) * d_in / (rate * workers)
    return arithmetic, (_sent(passes, d_in, workers) + _back(passes, k, workers)) / bandwidth


def _crossing(passes: Sequence[tuple[int, int]], d_in: int, k: int, rate: float, bandwidth: float) -> int | None:
    """The fewest workers for which the network takes longer than the arithmetic: the one falls, the other rises."""
    low, high = 0, _MOST_WORKERS
    while high - low > 1:
        middle = (low + high) // 2
        arithmetic, network = _seconds(passes, d_in, k, middle, rate, bandwidth)
        low, high = (low, middle) if network > arithmetic else (middle, high)
    return None if high == _MOST_WORKERS else high
