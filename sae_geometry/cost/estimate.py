"""Cost estimates for this machine: operations, memory, and time from a short probe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sae_geometry.cost.cluster_model import Pass
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.blocks import listing_bytes
from sae_geometry.kernels.screens.cpu import shortlist_width
from sae_geometry.kernels.sweep import MAX_K, SweepPlan, cpu_threads, listing_memory, plan_sweep, sweep
from sae_geometry.kernels.types import ScreenName
from sae_geometry.matching import On, OneToOne
from sae_geometry.matching.defaults import MatchingName, default_matching
from sae_geometry.matching.optimal import CANDIDATES, MORE
from sae_geometry.nulls import LISTED, default_turns
from sae_geometry.pairwise.inputs import several
from sae_geometry.sources import as_dictionary

Verb = Literal["compare", "match", "within", "seeds", "agreement", "span", "split", "truth", "umap", "drift", "flow"]
_SCREENS: dict[str, ScreenName] = {
    "cpu-float32": "cpu",
    "cpu-int8": "int8",
    "torch-float32": "torch",
    "torch-fp16": "fp16",
    "torch-tf32": "tf32",
}
_NEAREST = 32  # nearest latents whose span is measured
_GREEDY_K = 16
_PER_CANDIDATE = 125  # bytes resident at the peak, measured with 100,000 latents (3.9 kB each) and a million (4.0 GB)


@dataclass(frozen=True)
class Job:
    """Sweeps of one kind: a against b (within a if None), k best, with or without columns, and how often."""

    a: Tensor
    b: Tensor | None
    k: int = 1
    columns: bool = True
    times: float = 1.0

    @property
    def multiplications(self) -> float:
        """Return the multiplications: n·m·d per sweep, half of that within one dictionary."""
        n, d = self.a.shape
        return self.times * (float(n * n * d) / 2 if self.b is None else float(n * self.b.shape[0] * d))


@dataclass(frozen=True)
class Question:
    """Parameters of the question to estimate."""

    dictionaries: tuple[Dictionary, ...]
    matching: MatchingName | None
    n_neighbors: int
    n_terms: int
    on: On = "decoder"

    @property
    def rows(self) -> list[Tensor]:
        """Return the compared rows: decoder directions, encoder directions, or both concatenated.

        Raises:
            ValueError: encoders requested, but missing or of different widths.
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
        """Return the encoder directions if all dictionaries have them in one width; otherwise none."""
        found = [d.encoder_directions for d in self.dictionaries if d.encoder_directions is not None]
        same = len({e.shape[1] for e in found}) == 1
        return found if same and len(found) == len(self.dictionaries) else []


@dataclass(frozen=True)
class _Verb:
    """One verb: its number of dictionaries, its sweeps, and the work not estimated."""

    least: int
    most: int | None
    jobs: Callable[[Question], list[Job]]
    besides: str


def _nearest(a: Tensor, b: Tensor) -> list[Job]:
    """Return the sweep of a comparison, and those of its controls."""
    return [*_between(a, b), Job(a, None, LISTED), Job(b, None, LISTED)]


def _between(a: Tensor, b: Tensor) -> list[Job]:
    """Return the sweeps of a comparison without those within each dictionary."""
    return [Job(a, b, LISTED), Job(a, b, LISTED), *[Job(a, b, 1)] * (default_turns(len(a), len(b)) - 1)]


def _within(x: Tensor) -> list[Job]:
    return [Job(x, None, MAX_K), Job(x, None, LISTED), *_between(x, x)[1:]]


def _paired(a: Tensor, b: Tensor, matching: str | None) -> list[Job]:
    """Return the sweeps of a one-to-one matching with known nearest partners."""
    if matching == "greedy":
        return [Job(a, b, _GREEDY_K)]
    if matching == "optimal":
        return [Job(a, b, CANDIDATES), Job(a, b, MORE, columns=False)]
    return []


def _default_matching(q: Question) -> OneToOne:
    return default_matching(*(d.n_latents for d in q.dictionaries))


def _compare(q: Question) -> list[Job]:
    pairs = list(combinations(q.rows, 2))
    return [job for a, b in pairs for job in (*_nearest(a, b), *_paired(a, b, q.matching or "nearest"))]


def _match(q: Question) -> list[Job]:
    sides = [q.rows, q.rows, *([q.encoders] if q.encoders else [])]  # signed, absolute, encoders
    controls = _nearest(q.rows[0], q.rows[1])[1:]
    return [*controls, *(job for x in sides for job in _paired(x[0], x[1], "optimal"))]


def _seeds(q: Question) -> list[Job]:
    matching = q.matching or _default_matching(q)
    pairs = list(combinations(q.rows, 2))
    encoders = list(combinations(q.encoders, 2)) if q.on == "decoder" else []
    return [
        *(job for a, b in pairs for job in (*_between(a, b), *_paired(a, b, matching))),
        *(Job(x, None, LISTED) for x in q.rows),
        *(job for a, b in encoders for job in (Job(a, b, 1 if matching == "mutual" else CANDIDATES),)),
    ]


def _agreement(q: Question) -> list[Job]:
    sides = (q.rows, q.encoders)
    by_chance = [Job(side[0], side[1], columns=False) for side in sides]
    return [*(job for side in sides for job in _nearest(side[0], side[1])), *by_chance]


def _split(q: Question) -> list[Job]:
    narrow, wide = q.rows
    turns = default_turns(len(wide), len(narrow))
    parents = [Job(wide, narrow, LISTED)] * 2 + [Job(wide, narrow)] * (turns - 1)
    return [*parents, Job(narrow, wide, columns=False, times=float(q.n_terms))]


def _span(q: Question) -> list[Job]:
    a, b = q.rows
    most = min(_NEAREST, len(b))
    return [*_nearest(a, b), *_paired(a, b, _default_matching(q)), Job(a, b, most, columns=False)]


def _flow(q: Question) -> list[Job]:
    pairs = list(pairwise(q.rows))
    matching = [job for a, b in pairs for job in _paired(a, b, default_matching(len(a), len(b)))]
    return [*(job for a, b in pairs for job in _nearest(a, b)), *matching]


def _umap(q: Question) -> list[Job]:
    k = max(q.n_neighbors - 1, 1)
    return [*(Job(x, None, k) for x in q.rows), *(Job(a, b, k) for a, b in combinations(q.rows, 2))]


_ALWAYS = "reading the inputs, tables and figures"
_VERBS: dict[Verb, _Verb] = {
    "compare": _Verb(2, None, _compare, "chance, the other ways of counting and, with a one-to-one matching, its "
                     "solver, rounds beyond the first, and the same with the other dictionary turned"),
    "match": _Verb(2, 2, _match, "the assignment solver, rounds beyond the first, and the same with B turned"),
    "within": _Verb(1, None, lambda q: [job for x in q.rows for job in _within(x)], "chance, mean |cosine|, spectrum"),
    "seeds": _Verb(2, None, _seeds, "chance, the solver, the rounds it may need beyond the first, and the consensus"),
    "agreement": _Verb(2, 2, _agreement, "chance"),
    "span": _Verb(2, 2, _span, "the solver, principal angles, and the same with B turned; the sweep over "
                  "unmatched latents is counted as if all were"),
    "split": _Verb(2, 2, _split, "the fits of the combinations, and the same with the wide one turned"),
    "flow": _Verb(2, None, _flow, "the solver, rounds beyond the first, chains"),
    "truth": _Verb(2, 2, lambda q: [*_nearest(q.rows[0], q.rows[1]), *_paired(q.rows[0], q.rows[1], "optimal")],
                    "the assignment solver, and rounds beyond the first"),
    "umap": _Verb(1, None, _umap, "the layout that UMAP optimises from these neighbours, its evidence, and one-to-one "
                  "partners across runs"),
    "drift": _Verb(2, None, lambda _: [], "nothing else of weight: reading the states is most of it"),
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """The cost of a question.

    Attributes:
        verb: the question.
        n_sweeps: passes over a similarity matrix.
        flops: multiplications and additions of all products, without blocks that symmetry saves.
        bytes_read: bytes read by the products if every row block is multiplied with the other side once.
        memory: largest memory of any sweep in bytes, excluding inputs.
        seconds: expected time of the sweeps, from a probe on the largest of them.
        probe_seconds: how long the probe took.
        device, screen, why: where and how the largest sweep would run.
        leaves_out: work of the verb that is not estimated.
        passes: the sweeps, in order of execution.
        whole_pairs: number of dictionary pairs that workers of a cluster may run whole; 0 if none.
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
    dictionaries: Any,
    verb: Verb = "compare",
    *,
    matching: MatchingName | None = None,
    n_neighbors: int = 15,
    n_terms: int = 4,
    on: On = "decoder",
    probe_seconds: float = 1.0,
) -> Estimate:
    """Estimate what `verb` would cost for these dictionaries on the device they are on.

    Args:
        dictionaries: one of anything `compare` takes, or a list of them: two or more for "compare" and "seeds" (every
            pair), two for "match", "agreement", "span", "split" and "truth", one or more for "within" (each) and "umap"
            (together), the checkpoints of a run for "drift", the layers for "flow".
        verb: the question.
        matching: for "compare" and "seeds"; None for their default.
        n_neighbors: for "umap", self included.
        n_terms: for "split".
        on: "decoder", "encoder" or "both", for "compare" and "seeds".
        probe_seconds: approximate duration of the probe.

    Raises:
        ValueError: an unknown verb, too few or too many dictionaries, different widths, for "agreement" no encoders,
            or a memory ceiling that is too low.

    Example:
        >>> import numpy as np
        >>> from sae_geometry.dictionary import Dictionary
        >>> from sae_geometry.cost.estimate import estimate
        >>> d = Dictionary.from_decoder(np.eye(8, 16), latent_axis=0)
        >>> estimate([d, d]).flops
        10240.0
    """
    if verb not in _VERBS:
        raise ValueError(f"a question is one of {', '.join(get_args(Verb))}; got {verb!r}")
    asked, given = _VERBS[verb], several(dictionaries)
    if len(given) < asked.least:
        raise ValueError(f"{verb} needs {asked.least} or more dictionaries; got {len(given)}")
    if asked.most is not None and len(given) > asked.most:
        raise ValueError(f"{verb} takes {asked.most} dictionaries; got {len(given)}")
    loaded = tuple(as_dictionary(d) for d in given)
    if len({d.d_in for d in loaded}) > 1:
        raise ValueError(f"the dictionaries differ in width: {', '.join(str(d.d_in) for d in loaded)}")
    question = Question(loaded, matching, n_neighbors, n_terms, on)
    if verb == "agreement" and not question.encoders:
        raise ValueError("agreement needs encoders of one width on both sides")
    leaves_out = f"{_ALWAYS}; {asked.besides}"
    if verb == "drift":
        return _drift(question.rows, probe_seconds, leaves_out)
    jobs = asked.jobs(question)
    largest = max(jobs, key=lambda job: job.multiplications / job.times)
    lists = max(jobs, key=lambda job: _listed(job, cpu_threads()))
    memory = listing_memory(lists.a, lists.b, lists.k) if lists.k > 1 else None  # as those who make such lists allow
    plan_sweep(lists.a, lists.b, lists.k, columns=lists.columns, memory=memory)  # a ceiling may be too low for it
    plan = plan_sweep(largest.a, largest.b, largest.k, columns=largest.columns, memory=memory)
    start = time.perf_counter()
    rate = _probe(largest, plan, probe_seconds, memory)
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
        seconds=multiplications / rate,
        probe_seconds=probed,
        device=str(largest.a.device),
        screen=plan.screen,
        why=plan.why,
        leaves_out=leaves_out,
        passes=_passes(jobs),
        whole_pairs=comb(len(loaded), 2) if verb == "seeds" else 0,
    )


def matching_bytes(n: int, m: int) -> int:
    """Return the approximate peak memory of an optimal n × m matching in bytes, excluding inputs: its candidates."""
    return _PER_CANDIDATE * CANDIDATES * (n + m)


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
    stripes = -(-job.a.shape[0] // plan.blocks[0])
    others = job.a.shape[0] / 2 if job.b is None else job.b.shape[0]
    size = 1 if plan.screen == "cpu-int8" else 4
    return 4.0 * job.a.numel() + size * stripes * others * job.a.shape[1]


def _probe(job: Job, plan: SweepPlan, budget: float, memory: int | None) -> float:
    """Return multiplications per second of the sweep over its first rows, increased until time is up."""
    a, others = job.a, job.a if job.b is None else job.b
    options = {"screen": _SCREENS[plan.screen], "threads": plan.threads, "blocks": plan.blocks, "columns": job.columns,
               "memory": memory}  # fmt: skip
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
    # The difference of the two largest removes the fixed cost of a sweep (preparing the other side).
    (fewer, short), (most, long) = [(0, 0.0), *times.items()][-2:]
    if long - short < (most - fewer) / most * long / 2:  # noise, since the fixed cost is never half of the total
        fewer, short = 0, 0.0
    return (most - fewer) * others.shape[0] * a.shape[1] / (long - short)


def _drift(states: list[Tensor], budget: float, leaves_out: str) -> Estimate:
    """Estimate row-wise cosines of every checkpoint with the last and the next; there is no sweep."""
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
