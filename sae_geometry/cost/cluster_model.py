"""What a question would cost on M workers: arithmetic against network, by a model of what the Dask runner does.

A sweep of n × m latents of width d takes n·m·d multiplications, half of that within one dictionary, shared out evenly.
Every worker is sent each operand whole (4·d bytes a latent) unless it still has it, and sends back the lists of its
tiles (12 bytes a partner: a row's from its tile, a column's from every tile). Where there are as many pairs of
dictionaries as workers, pairs are not cut: a worker takes one after another. Arithmetic falls with the number of
workers and what goes through the network grows with it, so there is a number beyond which more make it slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt

from sae_geometry.kernels.tiles import LEAST, pieces_for

KEPT = 1 << 30  # bytes of operands that stay on a worker for the next sweep
PARTNER = 12  # bytes of a partner on its way back
_LISTED = 100  # bytes that a listed partner takes while it is found
_ASIDE = 512 << 20  # bytes of a worker before any work: Python, torch, the compiled loops
_MOST_WORKERS = 1 << 20


@dataclass(frozen=True)
class Pass:
    """One sweep: of n latents of one side against m of another, or within one.

    Attributes:
        a, b: which side (a number for each set of directions); b is None within one.
        n, m: latents; the same twice within one.
        k: partners listed of each latent.
        columns: whether B's latents get lists too.
    """

    a: int
    b: int | None
    n: int
    m: int
    k: int = 1
    columns: bool = True

    @property
    def pairs(self) -> float:
        """Cosines to be made."""
        return self.n * self.n / 2 if self.b is None else float(self.n * self.m)

    @property
    def operands(self) -> dict[int, int]:
        """The latents of each side."""
        return {self.a: self.n} if self.b is None else {self.a: self.n, self.b: self.m}


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
    passes: Sequence[Pass],
    d_in: int,
    *,
    n_dictionaries: int,
    workers: int,
    rate: float,
    bandwidth: float,
    whole_pairs: int = 0,
) -> ClusterPlan:
    """The cost of these passes on so many workers.

    Args:
        passes: in the order in which they are made.
        d_in: the width.
        n_dictionaries: that the passes are made of.
        workers: how many.
        rate: multiplications a second of one worker, from a probe on one.
        bandwidth: bytes a second that the client's link carries.
        whole_pairs: into how many pairs of dictionaries the passes fall, where a worker may take a whole one; they are
            cut into tiles all the same where there are fewer of them than workers.

    Raises:
        ValueError: no passes, or a number that is not positive.

    Example:
        >>> from sae_geometry.cost.cluster_model import Pass
        >>> plan = cluster_plan([Pass(0, 1, 1000, 1000)], 64, n_dictionaries=2, workers=2, rate=1e9, bandwidth=1e9)
        >>> plan.multiplications, plan.bytes_sent, plan.limited_by
        (64000000.0, 1024000.0, 'arithmetic')
    """
    if not passes or min(workers, rate, bandwidth, d_in, n_dictionaries) <= 0:
        raise ValueError("a plan needs at least one pass, and workers, rate, bandwidth and width above zero")
    model = _Model(tuple(passes), d_in, whole_pairs)
    arithmetic, network = model.seconds(workers, rate, bandwidth)
    return ClusterPlan(
        n_dictionaries=n_dictionaries,
        n_passes=len(passes),
        workers=workers,
        multiplications=model.multiplications,
        bytes_sent=workers * model.operands[0],
        bytes_back=model.back(workers),
        memory_a_worker=_ASIDE + model.operands[1] + model.lists(workers),
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

    @property
    def multiplications(self) -> float:
        return sum(p.pairs for p in self.passes) * self.d_in

    def tiles(self, p: Pass, workers: int) -> int:
        """Into how many tiles this pass is cut."""
        if self._goes_whole(workers):
            return 1
        most = max(1, p.n // LEAST)
        if p.b is not None:
            return min(pieces_for(p.n, workers), most)
        sides = min(_sides(pieces_for(p.n, workers)), most)
        return sides * (sides + 1) // 2

    def back(self, workers: int) -> float:
        """Bytes of lists that come back."""
        return float(sum(PARTNER * p.k * self._listed(p, workers) for p in self.passes))

    def lists(self, workers: int) -> float:
        """Bytes of one tile's lists while they are found."""
        return max(_LISTED * (p.k + 8) * (p.n / self.tiles(p, workers) + p.m) for p in self.passes)

    def seconds(self, workers: int, rate: float, bandwidth: float) -> tuple[float, float]:
        """Of arithmetic and of network; whole pairs come in rounds, of which the last may not keep all at work."""
        if self._goes_whole(workers):
            done = self.multiplications * -(-self.whole_pairs // workers) / self.whole_pairs
        else:  # no more workers are at a pass than it has tiles
            done = self.d_in * sum(p.pairs / min(workers, self.tiles(p, workers)) for p in self.passes)
        return done / rate, (workers * self.operands[0] + self.back(workers)) / bandwidth

    def crossing(self, rate: float, bandwidth: float) -> int | None:
        """The fewest workers for which the network takes longer: arithmetic falls as they become more, it rises."""
        low, high = 0, _MOST_WORKERS
        while high - low > 1:
            middle = (low + high) // 2
            arithmetic, network = self.seconds(middle, rate, bandwidth)
            low, high = (low, middle) if network > arithmetic else (middle, high)
        return None if high == _MOST_WORKERS else high

    def _listed(self, p: Pass, workers: int) -> float:
        """Lists that come back of a pass: a row's once, a column's from every tile; within, all from a row of tiles."""
        tiles = self.tiles(p, workers)
        if p.b is None:
            return float(p.n * _sides(tiles))
        return float(p.n + p.m * tiles) if p.columns else float(p.n)

    def _goes_whole(self, workers: int) -> bool:
        return self.whole_pairs >= workers

    @cached_property
    def operands(self) -> tuple[float, float]:
        """Bytes sent to a worker and most bytes held by it: what was asked for last stays while there is room."""
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


def _sides(tiles: int) -> int:
    """Of how many blocks a side a dictionary is cut against itself for so many tiles, or a few more."""
    return ceil((sqrt(8 * tiles + 1) - 1) / 2)
