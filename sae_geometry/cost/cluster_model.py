"""Cost model of a comparison on M Dask workers: the time for arithmetic, and the time for network traffic.

A sweep of n × m latents of width d takes n·m·d multiplications (half within one dictionary), divided evenly among the
workers. Each worker receives every whole operand (4·d bytes per latent) that it has not cached, and returns the lists
of its tiles (12 bytes per partner; a row's list comes from one tile, a column's from every tile). If there are at least
as many pairs of dictionaries as workers, pairs are not split. More workers take less time for arithmetic but need more
network traffic, so beyond some number they are slower.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import lt

from sae_geometry.kernels.tiles import LEAST, pieces_for, sides_for

KEPT = 1 << 30  # bytes of operands cached on a worker between sweeps
PARTNER = 12  # bytes per returned partner
_LISTED = 100  # bytes per listed partner during a sweep
_ASIDE = 512 << 20  # bytes that an idle worker takes for Python, torch and compiled loops
_MOST_WORKERS = 1 << 20


@dataclass(frozen=True)
class Pass:
    """One sweep of n latents of direction set `a` against m latents of `b`, or within `a` if `b` is None."""

    a: int
    b: int | None
    n: int
    m: int
    k: int = 1
    columns: bool = True

    @property
    def pairs(self) -> float:
        """Return the number of cosines."""
        return self.n * self.n / 2 if self.b is None else float(self.n * self.m)

    @property
    def operands(self) -> dict[int, int]:
        """Return the number of latents of each direction set."""
        return {self.a: self.n} if self.b is None else {self.a: self.n, self.b: self.m}


@dataclass(frozen=True)
class ClusterPlan:
    """Estimated cost of a comparison on a cluster.

    Attributes:
        bytes_sent, bytes_back: bytes of the operands sent to workers and of the lists that they return.
        limited_by: "arithmetic" or "network", whichever takes longer.
        most_workers: smallest number of workers at which the network takes longer; None if above a million.
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
            "the network is never the limit below a million workers"
            if self.most_workers is None
            else f"with {self.most_workers:,} workers or more, the network is the limit"
        )
        return "\n".join(
            [
                f"{self.workers:,} workers (from a model, see docs/ten_thousand_dictionaries.md):",
                f"  passes       {self.n_passes:,} over {self.n_dictionaries:,} dictionaries",
                f"  moved        {self.bytes_sent / 1e9:.3g} GB to the workers, {self.bytes_back / 1e9:.3g} GB back",
                f"  memory       {self.memory_a_worker / 2**30:.2f} GiB per worker",
                f"  time         {self.seconds_arithmetic:.3g} s arithmetic, {self.seconds_network:.3g} s network",
                f"  limited by   {self.limited_by}; {beyond}",
            ]
        )


def cluster_plan(
    passes: Sequence[Pass],
    d_in: int,
    *,
    n_dictionaries: int,
    workers: int,
    rate: float,
    bandwidth: float,
    whole_pairs: int = 0,
) -> ClusterPlan:
    """Estimate the cost of sweeps on a cluster.

    Args:
        rate: multiplications per second of one worker.
        bandwidth: bytes per second of the client's network link.
        whole_pairs: number of pairs of dictionaries that workers may run whole; if there are fewer pairs than workers,
            sweeps are split into tiles instead.

    Example:
        >>> plan = cluster_plan([Pass(0, 1, 1000, 1000)], 64, n_dictionaries=2, workers=2, rate=1e9, bandwidth=1e9)
        >>> plan.multiplications, plan.bytes_sent, plan.limited_by
        (64000000.0, 1024000.0, 'arithmetic')
    """
    if not passes or min(workers, rate, bandwidth, d_in, n_dictionaries) <= 0:
        raise ValueError("a plan needs at least one pass; workers, rate, bandwidth and sizes must be above zero")
    model = _Model(tuple(passes), d_in, whole_pairs)
    arithmetic, network = model.seconds(workers, rate, bandwidth)
    lists = max(_LISTED * (p.k + 8) * (p.n / model.tiles(p, workers) + p.m) for p in passes)
    return ClusterPlan(
        n_dictionaries=n_dictionaries,
        n_passes=len(passes),
        workers=workers,
        multiplications=sum(p.pairs for p in passes) * d_in,
        bytes_sent=workers * model.operands[0],
        bytes_back=model.back(workers),
        memory_a_worker=_ASIDE + model.operands[1] + lists,
        seconds_arithmetic=arithmetic,
        seconds_network=network,
        limited_by="arithmetic" if arithmetic >= network else "network",
        most_workers=model.crossing(rate, bandwidth),
    )


@dataclass(frozen=True)
class _Model:
    passes: tuple[Pass, ...]
    d_in: int
    whole_pairs: int

    def tiles(self, p: Pass, workers: int) -> int:
        if self.whole_pairs >= workers:
            return 1
        most = max(1, p.n // LEAST)
        if p.b is not None:
            return min(pieces_for(p.n, workers), most)
        sides = min(sides_for(pieces_for(p.n, workers)), most)
        return sides * (sides + 1) // 2

    def back(self, workers: int) -> float:
        """Return the bytes of the returned lists, counting every tile that returns part of a list."""
        total = 0
        for p in self.passes:
            tiles = self.tiles(p, workers)
            lists = p.n * sides_for(tiles) if p.b is None else p.n + (p.m * tiles if p.columns else 0)
            total += PARTNER * p.k * lists
        return float(total)

    def seconds(self, workers: int, rate: float, bandwidth: float) -> tuple[float, float]:
        """Return the seconds of arithmetic and of the network. In the last round of whole pairs, workers may idle."""
        if self.whole_pairs >= workers:
            rounds = -(-self.whole_pairs // workers)
            done = sum(p.pairs for p in self.passes) * self.d_in * rounds / self.whole_pairs
        else:  # A pass uses at most as many workers as it has tiles.
            done = self.d_in * sum(p.pairs / min(workers, self.tiles(p, workers)) for p in self.passes)
        return done / rate, (workers * self.operands[0] + self.back(workers)) / bandwidth

    def crossing(self, rate: float, bandwidth: float) -> int | None:
        """Return the smallest number of workers for which the network takes longer than arithmetic."""
        counts = range(1, _MOST_WORKERS)
        found = bisect_left(counts, True, key=lambda workers: lt(*self.seconds(workers, rate, bandwidth)))
        return None if found == len(counts) else counts[found]

    @cached_property
    def operands(self) -> tuple[float, float]:
        """Return the bytes sent to a worker, which caches recent operands, and the peak bytes in its cache."""
        held: dict[int, float] = {}
        sent = most = 0.0
        for p in self.passes:
            for side, latents in p.operands.items():
                size = 4.0 * self.d_in * latents
                if side not in held:
                    sent += size
                    while len(held) >= 2 and size + sum(held.values()) > KEPT:
                        del held[next(iter(held))]
                held[side] = held.pop(side, size)
                most = max(most, sum(held.values()))
        return sent, most
