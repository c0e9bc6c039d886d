"""What a question will cost on this machine, before it is asked: operations, memory, and time from a short probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.sweep import ScreenName, SweepPlan, plan_sweep, sweep

Verb = Literal["compare", "within", "umap"]
_SCREENS: dict[str, ScreenName] = {
    "cpu-float32": "cpu",
    "cpu-int8": "int8",
    "torch-float32": "torch",
    "torch-fp16": "fp16",
    "torch-tf32": "tf32",
}


@dataclass(frozen=True)
class Estimate:
    """The cost of a question.

    Attributes:
        verb: what would be asked.
        n_sweeps: passes over a similarity matrix.
        flops: multiplications and additions of all products, blocks that symmetry saves left out.
        bytes_read: what the products read from memory if every block of rows goes through the other side once.
        memory: the most bytes above the inputs at any time.
        seconds: expected time of the sweeps, from a probe on the largest of them.
        probe_seconds: how long the probe took.
        device, screen, why: where and how the largest sweep would run.
        leaves_out: what the verb does besides, which no probe can foresee; empty if nothing.
    """

    verb: Verb
    n_sweeps: int
    flops: float
    bytes_read: float
    memory: int
    seconds: float
    probe_seconds: float
    device: str
    screen: str
    why: str
    leaves_out: str

    def __str__(self) -> str:
        rate = self.flops / self.seconds / 1e9
        sweeps = "1 sweep" if self.n_sweeps == 1 else f"{self.n_sweeps} sweeps"
        lines = [
            f"{self.verb}: {sweeps} on {self.device}, {self.screen} ({self.why})",
            f"  operations   {self.flops:.3g}",
            f"  memory read  {self.bytes_read / 1e9:.3g} GB",
            f"  memory       {self.memory / 2**20:.0f} MiB above the inputs",
            f"  time         about {self.seconds:.2g} s ({rate:.0f} billion operations a second in a probe)",
        ]
        return "\n".join([*lines, f"  not counted  {self.leaves_out}"] if self.leaves_out else lines)


def estimate(
    dictionaries: Sequence[Dictionary], verb: Verb = "compare", *, n_neighbors: int = 15, probe_seconds: float = 1.0
) -> Estimate:
    """What `verb` would cost for these dictionaries on the device they are on.

    Args:
        dictionaries: two or more for "compare" (every pair is), one or more for "within" (each) and "umap" (together).
        verb: the question.
        n_neighbors: for "umap", self included.
        probe_seconds: about how long the probe may take.

    Raises:
        ValueError: too few dictionaries, or widths that differ.

    Example:
        >>> import numpy as np
        >>> from sae_geometry.dictionary import Dictionary
        >>> from sae_geometry.planning import estimate
        >>> d = Dictionary.from_decoder(np.eye(8, 16), latent_axis=0)
        >>> estimate([d, d]).flops
        2048.0
    """
    least = 2 if verb == "compare" else 1
    if len(dictionaries) < least:
        raise ValueError(f"{verb} needs {least} or more dictionaries; got {len(dictionaries)}")
    if len({d.d_in for d in dictionaries}) > 1:
        raise ValueError(f"the dictionaries differ in width: {', '.join(str(d.d_in) for d in dictionaries)}")
    rows = [d.directions for d in dictionaries]
    jobs: list[tuple[torch.Tensor, torch.Tensor | None]]
    if verb == "compare":
        jobs = list(combinations(rows, 2))
    elif verb == "within":
        jobs = [(x, None) for x in rows]
    else:
        jobs = [(torch.cat(rows) if len(rows) > 1 else rows[0], None)]
    k = n_neighbors - 1 if verb == "umap" else 1
    largest = max(jobs, key=lambda job: _multiplications(*job))
    plan = plan_sweep(*largest, k)
    start = time.perf_counter()
    rate = _probe(*largest, k, plan, probe_seconds)
    probed = time.perf_counter() - start
    multiplications = sum(_multiplications(*job) for job in jobs)
    return Estimate(
        verb=verb,
        n_sweeps=len(jobs),
        flops=2 * multiplications,
        bytes_read=sum(_bytes_read(a, b, plan) for a, b in jobs),
        memory=plan.memory,
        seconds=multiplications / rate,
        probe_seconds=probed,
        device=str(largest[0].device),
        screen=plan.screen,
        why=plan.why,
        leaves_out="the layout that UMAP optimises from these neighbours" if verb == "umap" else "",
    )


def _multiplications(a: torch.Tensor, b: torch.Tensor | None) -> float:
    """Of a sweep: n·m·d, half of that within one dictionary."""
    n, d = a.shape
    return float(n * n * d) / 2 if b is None else float(n * b.shape[0] * d)


def _bytes_read(a: torch.Tensor, b: torch.Tensor | None, plan: SweepPlan) -> float:
    stripes = -(-a.shape[0] // plan.blocks[0])
    others = a.shape[0] / 2 if b is None else b.shape[0]
    size = 1 if plan.screen == "cpu-int8" else 4
    return 4.0 * a.numel() + size * stripes * others * a.shape[1]


def _probe(a: torch.Tensor, b: torch.Tensor | None, k: int, plan: SweepPlan, budget: float) -> float:
    """Multiplications a second of a sweep like the real one, over its first rows, more of them until time is up."""
    others = a if b is None else b
    options = {"screen": _SCREENS[plan.screen], "threads": plan.threads, "blocks": plan.blocks}
    sweep(a[: min(64, len(a))], others[: min(64, len(others))], k, **options)  # type: ignore[arg-type]  # warm up
    rows, times, spent = max(1, plan.blocks[0] * plan.threads // 4), dict[int, float](), 0.0
    while True:
        rows = min(len(a), rows)
        start = time.perf_counter()
        sweep(a[:rows], others, k, **options)  # type: ignore[arg-type]
        times[rows] = time.perf_counter() - start
        spent += times[rows]
        if rows == len(a) or (len(times) > 1 and spent + 4 * times[rows] > budget):
            break
        rows *= 4
    # Between the two largest, so that what every sweep does once (preparing the other side) counts once.
    (fewer, short), (most, long) = [(0, 0.0), *times.items()][-2:]
    if long <= short:  # noise
        fewer, short = 0, 0.0
    return (most - fewer) * others.shape[0] * a.shape[1] / (long - short)
