"""Estimate the cost of a command on this machine: operations, memory, and time from a short probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, get_args

import torch
from torch import Tensor

from sae_geometry.cost.cluster_model import Pass
from sae_geometry.cost.jobs import VERBS, Job, Question, Verb
from sae_geometry.kernels.blocks import listing_bytes
from sae_geometry.kernels.screens.cpu import shortlist_width
from sae_geometry.kernels.sweep import SweepPlan, cpu_threads, listing_memory, plan_sweep, sweep
from sae_geometry.kernels.types import ScreenName
from sae_geometry.matching import On
from sae_geometry.matching.defaults import MatchingName
from sae_geometry.matching.optimal import CANDIDATES
from sae_geometry.pairwise.inputs import several
from sae_geometry.sources import as_dictionary

_SCREENS: dict[str, ScreenName] = {
    "cpu-float32": "cpu",
    "cpu-int8": "int8",
    "torch-float32": "torch",
    "torch-fp16": "fp16",
    "torch-tf32": "tf32",
}
_ALWAYS = "reading the inputs"
_WRITING = 3.0, 1.5e-5  # seconds to write tables, figures and report on two cores: fixed, and per latent
# Peak memory of an optimal matching in bytes: a fixed part for loaded and compiled code, and a part per candidate.
_LOADED, _PER_CANDIDATE = 300_000_000, 125


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a command.

    Attributes:
        n_sweeps: number of passes over a similarity matrix.
        flops: number of multiplications and additions, without the blocks that symmetry saves.
        bytes_read: number of bytes that the products read if every row block is multiplied once with the other side.
        memory: largest memory of any sweep in bytes, excluding inputs.
        seconds: expected seconds of the sweeps (from a probe of the largest sweep) and of the matchings.
        writing: expected seconds to write tables, figures and the report.
        probe_seconds: seconds that the probe took.
        device, screen, why: device and screen of the largest sweep, and the reason for that screen.
        leaves_out: description of the work that is not estimated.
        passes: the sweeps, in order of execution.
        whole_pairs: number of dictionary pairs that workers of a cluster may run whole; 0 if none.
    """

    verb: Verb
    n_sweeps: int
    flops: float
    bytes_read: float
    memory: int
    seconds: float
    writing: float
    probe_seconds: float
    device: str
    screen: str
    why: str
    leaves_out: str
    passes: tuple[Pass, ...] = ()
    whole_pairs: int = 0

    def __str__(self) -> str:
        rate, lasts = self.flops / self.seconds / 1e9, self.seconds + self.writing
        sweeps = "1 sweep" if self.n_sweeps == 1 else f"{self.n_sweeps} sweeps"
        return "\n".join(
            [
                f"{self.verb}: {sweeps} on {self.device}, {self.screen} ({self.why})",
                f"  operations   {self.flops:.3g}",
                f"  memory read  {self.bytes_read / 1e9:.3g} GB",
                f"  memory       {self.memory / 2**20:.0f} MiB in addition to the inputs",
                f"  time         about {lasts:.2g} s, including {self.writing:.2g} s to write tables and figures "
                f"({rate:.0f} billion operations per second)",
                f"  not counted  {self.leaves_out}",
            ]
        )


def estimate(
    dictionaries: Any,
    verb: Verb = "compare",
    *,
    matching: MatchingName | None = None,
    n_neighbors: int = 15,
    n_terms: int = 4,
    on: On = "decoder",
    probe_seconds: float = 1.0,
) -> Estimate:
    """Estimate the cost of `verb` for these dictionaries on their device.

    Args:
        dictionaries: anything that `compare` takes, or a list: two or more for "compare" and "seeds" (every pair), two
            for "match", "agreement", "span", "split" and "truth", one or more for "within" (each) and "umap"
            (together), the checkpoints of a run for "drift", and the layers for "flow".
        verb: name of the command.
        matching: matching for "compare" and "seeds"; None for their default.
        n_neighbors: number of neighbors for "umap", including the point itself.
        n_terms: maximum number of wide latents per combination for "split".
        on: "decoder", "encoder" or "both", for "compare" and "seeds".
        probe_seconds: approximate duration of the probe.

    Raises:
        ValueError: the verb is unknown, there are too few or too many dictionaries, their widths differ, "agreement"
            lacks encoders, or the memory limit is too low.

    Example:
        >>> import numpy as np
        >>> from sae_geometry.dictionary import Dictionary
        >>> from sae_geometry.cost.estimate import estimate
        >>> d = Dictionary.from_decoder(np.eye(8, 16), latent_axis=0)
        >>> estimate([d, d]).flops
        11264.0
    """
    if verb not in VERBS:
        raise ValueError(f"verb must be one of {', '.join(get_args(Verb))}; got {verb!r}")
    asked, given = VERBS[verb], several(dictionaries)
    if len(given) < asked.least:
        raise ValueError(f"{verb} needs {asked.least} or more dictionaries; got {len(given)}")
    if asked.most is not None and len(given) > asked.most:
        raise ValueError(f"{verb} takes {asked.most} dictionaries; got {len(given)}")
    loaded = tuple(as_dictionary(d) for d in given)
    if len({d.d_in for d in loaded}) > 1:
        raise ValueError(f"the dictionaries differ in width: {', '.join(str(d.d_in) for d in loaded)}")
    question = Question(loaded, matching, n_neighbors, n_terms, on)
    if verb == "agreement" and not question.encoders:
        raise ValueError("agreement needs encoders of the same width in both dictionaries")
    leaves_out = f"{_ALWAYS}; {asked.besides}"
    if verb == "drift":
        return _drift(question.rows, probe_seconds, leaves_out)
    jobs = asked.jobs(question)
    largest = max(jobs, key=lambda job: job.multiplications / job.times)
    lists = max(jobs, key=lambda job: _listed(job, cpu_threads()))
    memory = listing_memory(lists.a, lists.b, lists.k) if lists.k > 1 else None  # `listing_sweep` uses this limit.
    plan_sweep(lists.a, lists.b, lists.k, columns=lists.columns, memory=memory)  # Raise if the limit is too low.
    plan = plan_sweep(largest.a, largest.b, largest.k, columns=largest.columns, memory=memory)
    start = time.perf_counter()
    fixed, each = _probe(largest, plan, probe_seconds, memory)
    probed = time.perf_counter() - start
    multiplications = sum(job.multiplications for job in jobs)
    return Estimate(
        verb=verb,
        n_sweeps=round(sum(job.times for job in jobs)),
        flops=2 * multiplications,
        bytes_read=sum(job.times * _bytes_read(job, plan) for job in jobs),
        memory=max(
            plan.memory + max(0, _listed(lists, plan.threads) - _listed(largest, plan.threads)),
            *(matching_bytes(len(j.a), len(j.b)) for j in jobs if j.b is not None and j.k == CANDIDATES),
            0,
        ),
        seconds=sum(j.times * (fixed * _size(j) / _size(largest)) + each * j.multiplications for j in jobs)
        + asked.solving(question),
        writing=_WRITING[0] + _WRITING[1] * sum(d.n_latents for d in loaded),
        probe_seconds=probed,
        device=str(largest.a.device),
        screen=plan.screen,
        why=plan.why,
        leaves_out=leaves_out,
        passes=_passes(jobs),
        whole_pairs=comb(len(loaded), 2) if verb == "seeds" else 0,
    )


def _size(job: Job) -> int:
    return len(job.a) + len(job.a if job.b is None else job.b)


def matching_bytes(n: int, m: int) -> int:
    """Return the approximate peak memory of an optimal n × m matching in bytes, excluding inputs."""
    return _LOADED + _PER_CANDIDATE * CANDIDATES * (n + m)


def _passes(jobs: Sequence[Job]) -> tuple[Pass, ...]:
    """Return the sweeps of these jobs, with direction sets numbered in order of appearance."""
    numbers: dict[int, int] = {}
    made: list[Pass] = []
    for job in jobs:
        a, b = (None if x is None else numbers.setdefault(id(x), len(numbers)) for x in (job.a, job.b))
        m = len(job.a if job.b is None else job.b)
        made += [Pass(a or 0, b, len(job.a), m, job.k, job.columns)] * max(1, round(job.times))
    return tuple(made)


def _listed(job: Job, threads: int) -> int:
    m = len(job.a) if job.b is None else len(job.b)
    return listing_bytes(len(job.a), m, job.k, job.columns or job.b is None, threads, shortlist_width(job.k))


def _bytes_read(job: Job, plan: SweepPlan) -> float:
    row_blocks = -(-job.a.shape[0] // plan.blocks[0])
    others = job.a.shape[0] / 2 if job.b is None else job.b.shape[0]
    size = 1 if plan.screen == "cpu-int8" else 4
    return 4.0 * job.a.numel() + size * row_blocks * others * job.a.shape[1]


def _probe(job: Job, plan: SweepPlan, budget: float, memory: int | None) -> tuple[float, float]:
    """Return the fixed seconds of a sweep, and its seconds per multiplication.

    The sweep is timed on more and more rows until `budget` seconds are spent. The fixed part is the time to prepare
    the columns and to finish their lists.
    """
    a, others = job.a, job.a if job.b is None else job.b
    options = {"screen": _SCREENS[plan.screen], "threads": plan.threads, "blocks": plan.blocks, "columns": job.columns,
               "memory": memory}  # fmt: skip
    sweep(a[: min(64, len(a))], others[: min(64, len(others))], job.k, **options)  # type: ignore[arg-type]  # Warm up.
    rows, times, spent = max(1, plan.blocks[0] * plan.threads // 4), dict[int, float](), 0.0
    while True:
        rows = min(len(a), rows)
        start = time.perf_counter()
        sweep(a[:rows], others, job.k, **options)  # type: ignore[arg-type]
        times[rows] = time.perf_counter() - start
        spent += times[rows]
        if rows == len(a) or (len(times) > 1 and spent + 4 * times[rows] > budget):
            break
        rows *= 4
    (fewer, short), (most, long) = [(0, 0.0), *times.items()][-2:]
    per_row = (long - short) / (most - fewer)
    if not long / most / 2 < per_row < long / most:  # A fixed part below 0 or above half of the total is noise.
        per_row = long / most
    return long - most * per_row, per_row / (others.shape[0] * a.shape[1])


def _drift(states: list[Tensor], budget: float, leaves_out: str) -> Estimate:
    """Estimate the cost of drift: row-wise cosines of each checkpoint with the final one and with the next."""
    x = states[-1]
    part = x[: min(len(x), 4096)]
    start, rounds = time.perf_counter(), 0
    while rounds == 0 or time.perf_counter() - start < budget / 4:
        u, v = part.to(torch.float64), part.to(torch.float64)
        float(((u * v).sum(dim=1) / (u.norm(dim=1) * v.norm(dim=1))).sum())
        rounds += 1
    probed = time.perf_counter() - start
    cosines = (2 * len(states) - 1) * len(x)
    return Estimate(
        verb="drift",
        n_sweeps=0,
        flops=6.0 * cosines * x.shape[1],
        bytes_read=8.0 * cosines * x.shape[1],
        memory=4 * x.numel() + 40 * part.numel(),
        seconds=probed / rounds * cosines / len(part),
        writing=_WRITING[0],
        probe_seconds=probed,
        device=str(x.device),
        screen="float64",
        why="cosines of corresponding latents only",
        leaves_out=leaves_out,
    )
