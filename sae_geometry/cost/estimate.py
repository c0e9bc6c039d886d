"""What a question will cost on this machine, before it is asked: operations, memory, and time from a short probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal, get_args

import torch
from torch import Tensor

from sae_geometry.cost.cluster_model import Pass
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.blocks import listing_bytes
from sae_geometry.kernels.screens.cpu import shortlist_width
from sae_geometry.kernels.sweep import SweepPlan, plan_sweep, sweep
from sae_geometry.kernels.types import ScreenName
from sae_geometry.matching import On, OneToOne
from sae_geometry.matching.defaults import MatchingName, default_matching
from sae_geometry.matching.optimal import CANDIDATES, MORE

Verb = Literal["compare", "match", "within", "seeds", "agreement", "span", "split", "umap", "drift"]
_SCREENS: dict[str, ScreenName] = {
    "cpu-float32": "cpu",
    "cpu-int8": "int8",
    "torch-float32": "torch",
    "torch-fp16": "fp16",
    "torch-tf32": "tf32",
}
_NEAREST = 32  # of the other side's, whose span is looked at
_GREEDY_K = 16


@dataclass(frozen=True)
class Job:
    """Sweeps of one kind: a against b (within a if None), the k best, of the columns too or not, so many times."""

    a: Tensor
    b: Tensor | None
    k: int = 1
    columns: bool = True
    times: float = 1.0

    @property
    def multiplications(self) -> float:
        """n·m·d each time, half of that within one dictionary."""
        n, d = self.a.shape
        return self.times * (float(n * n * d) / 2 if self.b is None else float(n * self.b.shape[0] * d))


@dataclass(frozen=True)
class Question:
    """What the estimate needs to know of what is asked."""

    dictionaries: tuple[Dictionary, ...]
    matching: MatchingName | None
    n_neighbors: int
    n_terms: int
    on: On = "decoder"

    @property
    def rows(self) -> list[Tensor]:
        """What is compared: decoder directions, encoder directions, or both beside each other.

        Raises:
            ValueError: encoders are asked for, and not all dictionaries have them of one width.
        """
        decoders = [d.directions for d in self.dictionaries]
        if self.on == "decoder":
            return decoders
        if not self.encoders:
            raise ValueError(f'on="{self.on}" needs encoders of one width in every dictionary; use on="decoder"')
        if self.on == "encoder":
            return self.encoders
        return [torch.cat(pair, dim=1) for pair in zip(decoders, self.encoders, strict=True)]

    @property
    def encoders(self) -> list[Tensor]:
        """Encoder directions, where all have them and of one width; otherwise none."""
        found = [d.encoder_directions for d in self.dictionaries if d.encoder_directions is not None]
        same = len({e.shape[1] for e in found}) == 1
        return found if same and len(found) == len(self.dictionaries) else []


@dataclass(frozen=True)
class _Verb:
    """One verb: how many dictionaries it takes, its sweeps, and what it does besides."""

    least: int
    most: int | None
    jobs: Callable[[Question], list[Job]]
    besides: str


def _paired(a: Tensor, b: Tensor, matching: str | None) -> list[Job]:
    """The sweeps of a one-to-one matching, its nearest partners known."""
    if matching == "greedy":
        return [Job(a, b, _GREEDY_K)]
    if matching == "optimal":
        return [Job(a, b, CANDIDATES), Job(a, b, MORE, columns=False)]
    return []


def _default_matching(q: Question) -> OneToOne:
    return default_matching(*(d.n_latents for d in q.dictionaries))


def _compare(q: Question) -> list[Job]:
    pairs = list(combinations(q.rows, 2))
    return [job for a, b in pairs for job in (Job(a, b), *_paired(a, b, q.matching or "nearest"))]


def _match(q: Question) -> list[Job]:
    sides = [q.rows, q.rows, *([q.encoders] if q.encoders else [])]  # signed, absolute, encoders
    return [job for x in sides for job in _paired(x[0], x[1], "optimal")]


def _seeds(q: Question) -> list[Job]:
    matching = q.matching or _default_matching(q)
    sides = [q.rows, *([q.encoders] if q.encoders and q.on == "decoder" else [])]
    pairs = [pair for side in sides for pair in combinations(side, 2)]
    return [job for a, b in pairs for job in (Job(a, b), *_paired(a, b, matching))]


def _agreement(q: Question) -> list[Job]:
    return [Job(side[0], side[1]) for side in (q.rows, q.encoders)]


def _split(q: Question) -> list[Job]:
    narrow, wide = q.rows
    return [Job(narrow, wide), Job(narrow, wide, columns=False, times=float(q.n_terms))]


def _span(q: Question) -> list[Job]:
    a, b = q.rows
    most = min(_NEAREST, len(b))
    return [Job(a, b), *_paired(a, b, _default_matching(q)), Job(a, b, most, columns=False)]


def _umap(q: Question) -> list[Job]:
    k = max(q.n_neighbors - 1, 1)
    return [*(Job(x, None, k) for x in q.rows), *(Job(a, b, k) for a, b in combinations(q.rows, 2))]


_ALWAYS = "reading the inputs, tables and figures"
_VERBS: dict[Verb, _Verb] = {
    "compare": _Verb(2, None, _compare, "chance, the other ways of counting and, with a one-to-one matching, its "
                     "solver, rounds beyond the first, and the same on random dictionaries"),
    "match": _Verb(2, 2, _match, "the assignment solver, rounds beyond the first, and the same on random dictionaries"),
    "within": _Verb(1, None, lambda q: [Job(x, None) for x in q.rows], "chance"),
    "seeds": _Verb(2, None, _seeds, "chance, the solver, the rounds it may need beyond the first, and the consensus"),
    "agreement": _Verb(2, 2, _agreement, "chance"),
    "span": _Verb(2, 2, _span, "the solver, principal angles, and the same on random directions; the sweep over "
                  "unmatched latents is counted as if all were"),
    "split": _Verb(2, 2, _split, "the fits of the combinations, and the same on a random dictionary"),
    "umap": _Verb(1, None, _umap, "the layout that UMAP optimises from these neighbours, its evidence, and one-to-one "
                  "partners across runs"),
    "drift": _Verb(2, None, lambda _: [], "nothing else of weight: reading the states is most of it"),
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """The cost of a question.

    Attributes:
        verb: what would be asked.
        n_sweeps: passes over a similarity matrix.
        flops: multiplications and additions of all products, blocks that symmetry saves left out.
        bytes_read: what the products read from memory if every block of rows goes through the other side once.
        memory: the most bytes above the inputs that any sweep takes.
        seconds: expected time of the sweeps, from a probe on the largest of them.
        probe_seconds: how long the probe took.
        device, screen, why: where and how the largest sweep would run.
        leaves_out: what the verb does besides, which no probe can foresee.
        passes: the sweeps, in the order in which they are made.
        whole_pairs: into how many pairs of dictionaries they fall that a cluster's workers may take whole; else 0.
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
    passes: tuple[Pass, ...] = ()
    whole_pairs: int = 0

    def __str__(self) -> str:
        rate = self.flops / self.seconds / 1e9
        sweeps = "1 sweep" if self.n_sweeps == 1 else f"{self.n_sweeps} sweeps"
        return "\n".join(
            [
                f"{self.verb}: {sweeps} on {self.device}, {self.screen} ({self.why})",
                f"  operations   {self.flops:.3g}",
                f"  memory read  {self.bytes_read / 1e9:.3g} GB",
                f"  memory       {self.memory / 2**20:.0f} MiB above the inputs",
                f"  time         about {self.seconds:.2g} s ({rate:.0f} billion operations a second in a probe)",
                f"  not counted  {self.leaves_out}",
            ]
        )


def estimate(
    dictionaries: Sequence[Dictionary],
    verb: Verb = "compare",
    *,
    matching: MatchingName | None = None,
    n_neighbors: int = 15,
    n_terms: int = 4,
    on: On = "decoder",
    probe_seconds: float = 1.0,
) -> Estimate:
    """What `verb` would cost for these dictionaries on the device they are on.

    Args:
        dictionaries: two or more for "compare" and "seeds" (every pair is), two for "match", "agreement", "span" and
            "split", one or more for "within" (each) and "umap" (together), a run's states for "drift".
        verb: the question.
        matching: for "compare" and "seeds"; None for what they take by default.
        n_neighbors: for "umap", self included.
        n_terms: for "split".
        on: "decoder", "encoder" or "both" are compared: for "compare" and "seeds".
        probe_seconds: about how long the probe may take.

    Raises:
        ValueError: an unknown verb, too few or too many dictionaries, widths that differ, or, for "agreement", no
            encoders.

    Example:
        >>> import numpy as np
        >>> from sae_geometry.dictionary import Dictionary
        >>> from sae_geometry.cost.estimate import estimate
        >>> d = Dictionary.from_decoder(np.eye(8, 16), latent_axis=0)
        >>> estimate([d, d]).flops
        2048.0
    """
    if verb not in _VERBS:
        raise ValueError(f"a question is one of {', '.join(get_args(Verb))}; got {verb!r}")
    asked = _VERBS[verb]
    if len(dictionaries) < asked.least:
        raise ValueError(f"{verb} needs {asked.least} or more dictionaries; got {len(dictionaries)}")
    if asked.most is not None and len(dictionaries) > asked.most:
        raise ValueError(f"{verb} takes {asked.most} dictionaries; got {len(dictionaries)}")
    if len({d.d_in for d in dictionaries}) > 1:
        raise ValueError(f"the dictionaries differ in width: {', '.join(str(d.d_in) for d in dictionaries)}")
    question = Question(tuple(dictionaries), matching, n_neighbors, n_terms, on)
    if verb == "agreement" and not question.encoders:
        raise ValueError("agreement needs encoders of one width on both sides")
    leaves_out = f"{_ALWAYS}; {asked.besides}"
    if verb == "drift":
        return _drift(question.rows, probe_seconds, leaves_out)
    jobs = asked.jobs(question)
    largest = max(jobs, key=lambda job: job.multiplications / job.times)
    plan = plan_sweep(largest.a, largest.b, largest.k, columns=largest.columns)
    start = time.perf_counter()
    rate = _probe(largest, plan, probe_seconds)
    probed = time.perf_counter() - start
    multiplications = sum(job.multiplications for job in jobs)
    lists = [_listed(job, plan.threads) for job in jobs]
    return Estimate(
        verb=verb,
        n_sweeps=round(sum(job.times for job in jobs)),
        flops=2 * multiplications,
        bytes_read=sum(job.times * _bytes_read(job, plan) for job in jobs),
        memory=plan.memory + max(0, max(lists) - _listed(largest, plan.threads)),
        seconds=multiplications / rate,
        probe_seconds=probed,
        device=str(largest.a.device),
        screen=plan.screen,
        why=plan.why,
        leaves_out=leaves_out,
        passes=_passes(jobs),
        whole_pairs=comb(len(dictionaries), 2) if verb == "seeds" else 0,
    )


def _passes(jobs: Sequence[Job]) -> tuple[Pass, ...]:
    """Each sweep of these jobs, the sets of directions numbered as they come."""
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
    stripes = -(-job.a.shape[0] // plan.blocks[0])
    others = job.a.shape[0] / 2 if job.b is None else job.b.shape[0]
    size = 1 if plan.screen == "cpu-int8" else 4
    return 4.0 * job.a.numel() + size * stripes * others * job.a.shape[1]


def _probe(job: Job, plan: SweepPlan, budget: float) -> float:
    """Multiplications a second of a sweep like the real one, over its first rows, more of them until time is up."""
    a, others = job.a, job.a if job.b is None else job.b
    options = {"screen": _SCREENS[plan.screen], "threads": plan.threads, "blocks": plan.blocks, "columns": job.columns}
    sweep(a[: min(64, len(a))], others[: min(64, len(others))], job.k, **options)  # type: ignore[arg-type]  # warm up
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
    # Between the two largest, so that what every sweep does once (preparing the other side) counts once.
    (fewer, short), (most, long) = [(0, 0.0), *times.items()][-2:]
    if long - short < (most - fewer) / most * long / 2:  # noise: what is done once is never half of it all
        fewer, short = 0, 0.0
    return (most - fewer) * others.shape[0] * a.shape[1] / (long - short)


def _drift(states: list[Tensor], budget: float, leaves_out: str) -> Estimate:
    """Row by row cosines of every state with the last and with the next: no sweep."""
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
        probe_seconds=probed,
        device=str(x.device),
        screen="float64",
        why="cosines of corresponding latents only",
        leaves_out=leaves_out,
    )
