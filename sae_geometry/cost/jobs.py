"""Table of the sweeps and other costs of every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import torch
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.quality import EVIDENCE_K
from sae_geometry.kernels.sweep import MAX_K
from sae_geometry.matching import On, OneToOne
from sae_geometry.matching.defaults import MatchingName, default_matching, listed
from sae_geometry.matching.optimal import CANDIDATES, MORE
from sae_geometry.nulls import LISTED, default_turns

Verb = Literal["compare", "match", "within", "seeds", "agreement", "span", "split", "truth", "umap", "drift", "flow"]
_NEAREST = 32  # number of nearest latents whose span is measured
_GREEDY_K = 16
_PER_PAIR = {"mutual": 0.0, "greedy": 2.5e-9, "optimal": 1.2e-7}  # seconds per pair of latents, on two cores


@dataclass(frozen=True)
class Job:
    """One or more identical sweeps of a against b (within a if b is None) for the k best partners."""

    a: Tensor
    b: Tensor | None
    k: int = 1
    columns: bool = True
    times: float = 1.0

    @property
    def multiplications(self) -> float:
        """Return the number of multiplications: n·m·d per sweep, or half as many within one dictionary."""
        n, d = self.a.shape
        return self.times * (float(n * n * d) / 2 if self.b is None else float(n * self.b.shape[0] * d))


@dataclass(frozen=True)
class Question:
    """Parameters of the command whose cost is estimated."""

    dictionaries: tuple[Dictionary, ...]
    matching: MatchingName | None
    n_neighbors: int
    n_terms: int
    on: On = "decoder"

    @property
    def rows(self) -> list[Tensor]:
        """Return the compared rows: decoder directions, encoder directions, or both concatenated."""
        decoders = [d.directions for d in self.dictionaries]
        if self.on == "decoder":
            return decoders
        if not self.encoders:
            raise ValueError(f'on="{self.on}" needs encoders of the same width in all dictionaries; use on="decoder"')
        if self.on == "encoder":
            return self.encoders
        return [torch.cat(pair, dim=1) for pair in zip(decoders, self.encoders, strict=True)]

    @property
    def encoders(self) -> list[Tensor]:
        """Return the encoder directions, or an empty list unless all dictionaries have encoders of the same width."""
        found = [d.encoder_directions for d in self.dictionaries if d.encoder_directions is not None]
        same = len({e.shape[1] for e in found}) == 1
        return found if same and len(found) == len(self.dictionaries) else []


@dataclass(frozen=True)
class Asked:
    """Costs of a command: its numbers of dictionaries, its sweeps, the work not estimated, and seconds of matchings."""

    least: int
    most: int | None
    jobs: Callable[[Question], list[Job]]
    besides: str
    solving: Callable[[Question], float] = lambda _: 0.0


def _nearest(a: Tensor, b: Tensor) -> list[Job]:
    """Return the sweeps of a comparison and of its controls."""
    return [*_between(a, b), Job(a, None, LISTED), Job(b, None, LISTED)]


def _between(a: Tensor, b: Tensor) -> list[Job]:
    """Return the sweeps of a comparison, except those within each dictionary."""
    return [Job(a, b, listed(LISTED, len(a), len(b)))] * (1 + default_turns(len(a), len(b)))


def _within(x: Tensor) -> list[Job]:
    return [Job(x, None, MAX_K), Job(x, None, LISTED), *_between(x, x)[1:]]


def _paired(a: Tensor, b: Tensor, matching: str | None) -> list[Job]:
    """Return the additional sweeps of a one-to-one matching once the nearest partners are known."""
    if matching == "greedy":
        return [Job(a, b, _GREEDY_K)]
    if matching == "optimal":
        return [Job(a, b, CANDIDATES), Job(a, b, MORE, columns=False)]
    return []


def _solving(a: Tensor, b: Tensor, matching: MatchingName | None = None) -> float:
    """Estimate the seconds spent solving one-to-one matchings, including those of the null expectation."""
    n, m = len(a), len(b)
    return _PER_PAIR[_method(a, b, matching)] * ((1 + default_turns(n, m)) * n * m + n * n / 4 + m * m / 4)


def _method(a: Tensor, b: Tensor, matching: MatchingName | None) -> MatchingName:
    return default_matching(len(a), len(b)) if matching in (None, "nearest") else matching


def _pairs_solving(q: Question) -> float:
    return sum(_solving(a, b, q.matching) for a, b in combinations(q.rows, 2))


def _default_matching(q: Question) -> OneToOne:
    return default_matching(*(d.n_latents for d in q.dictionaries))


def _compare(q: Question) -> list[Job]:
    pairs = list(combinations(q.rows, 2))
    jobs = [job for a, b in pairs for job in (*_nearest(a, b), *_paired(a, b, q.matching or "nearest"))]
    # The null expectation of a one-to-one matching sweeps halves; greedy reuses the lists within each dictionary.
    swept = [x for pair in pairs if _method(*pair, q.matching) != "greedy" for x in pair if len(x) > 1]
    return [*jobs, *(Job(x[: len(x) // 2], x[len(x) // 2 :], _GREEDY_K) for x in swept)]


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
        *(Job(a, b, 1 if matching == "mutual" else CANDIDATES) for a, b in encoders),
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
    """Return the sweeps for neighbors (as many as the quality measures need) and for partners across runs."""
    k, pairs = max(q.n_neighbors - 1, EVIDENCE_K), list(combinations(q.rows, 2))
    return [
        *(Job(x, None, k) for x in q.rows),
        *(Job(a, b, k) for a, b in pairs),
        *(Job(x, None, LISTED) for x in q.rows if pairs),
        *(job for a, b in pairs for job in (Job(a, b, k), *_paired(a, b, default_matching(len(a), len(b))))),
    ]


VERBS: dict[Verb, Asked] = {
    "compare": Asked(2, None, _compare, "other matchings, and statistics", _pairs_solving),
    "match": Asked(2, 2, _match, "further sweeps of the matchings with the turned B and between halves of a dictionary",
                   lambda q: 3 * _solving(q.rows[0], q.rows[1], "optimal")),
    "within": Asked(1, None, lambda q: [job for x in q.rows for job in _within(x)], "mean |cosine|, spectrum"),
    "seeds": Asked(2, None, _seeds, "the consensus", _pairs_solving),
    "agreement": Asked(2, 2, _agreement, "statistics"),
    "span": Asked(2, 2, _span, "principal angles, also with the turned B; the sweep over unmatched latents is counted "
                  "as if all latents were unmatched", _pairs_solving),
    "split": Asked(2, 2, _split, "the fits of the combinations, also with the turned wide dictionary"),
    "flow": Asked(2, None, _flow, "chains", lambda q: sum(_solving(a, b) for a, b in pairwise(q.rows))),
    "truth": Asked(2, 2, lambda q: [*_nearest(q.rows[0], q.rows[1]), *_paired(q.rows[0], q.rows[1], "optimal")],
                   "the scores", lambda q: _solving(q.rows[0], q.rows[1], "optimal")),
    "umap": Asked(1, None, _umap, "the layout that UMAP optimizes from these neighbors, and its quality",
                  lambda q: sum(_PER_PAIR[_method(a, b, None)] * len(a) * len(b) for a, b in combinations(q.rows, 2))),
    "drift": Asked(2, None, lambda _: [], "nothing else that takes long"),
}  # fmt: skip
