"""Controls of a comparison, from exact sweeps: each dictionary's own latents, and the turned other dictionary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_geometry.io.progress import Progress
from sae_geometry.kernels.ledger import enter, entries, ledger
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.kernels.types import Best, ScreenName, Sweep
from sae_geometry.matching.defaults import SMALL
from sae_geometry.nulls.competition import LISTED, Controls
from sae_geometry.nulls.turned import Axes, principal_axes, turned

SAME = 0.99  # At or above this cosine, latents of the same dictionary are copies, and not controls for each other.


@dataclass(frozen=True, eq=False)
class OwnLists:
    """The nine nearest other latents of each latent of a dictionary.

    Attributes:
        similarity: float64 [n, 9], similarities to other *directions*, without latents at `SAME` or above; descending,
            padded with −inf.
        index: int64 [n, 9], the nine nearest latents, including copies; padded with −1.
    """

    similarity: np.ndarray
    index: np.ndarray


OwnCache = dict[bool, OwnLists]  # keyed by `absolute`: whether similarity is |cos|


@dataclass(frozen=True)
class How:
    """Parameters of the controls.

    Attributes:
        absolute: whether similarity is |cos|.
        own_scales: factors that convert inner products within A and within B to similarities.
        seed: seed of the first turn.
        turns: number of turns of the other dictionary; the first gives the decoys, and all of them the means. None
            means 3 up to 4,096 latents per side, else 1.
    """

    absolute: bool = False
    own_scales: tuple[float, float] = (1.0, 1.0)
    seed: int = 0
    turns: int | None = None


@dataclass(frozen=True, eq=False)
class TurnedSweeps:
    """Two-sided sweeps of A against the turned B, one per turn, with the axes of the turns and the seed of the
    first."""

    axes: Axes
    sweeps: tuple[Sweep, ...]
    seed: int


def pair_controls(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    swept: Sweep,
    how: How,
    progress: Progress | None = None,
    own: Sequence[OwnCache] | None = None,
    turns: TurnedSweeps | None = None,
) -> tuple[Controls, Controls]:
    """Return the controls of A → B and of B → A, from the turned B and from each dictionary's own latents.

    Args:
        swept: the two-sided sweep of `a` against `b`, with `LISTED` or more partners.
        own: caches of the similarities within A and within B; missing entries are swept and added.
        turns: finished sweeps against the turned B; made here if None.
    """
    forth, back = turned_controls(a, b, swept, how, progress, turns)
    caches = own or ({}, {})
    with _screen(swept) as screen:
        for x, scale, known in zip((a, b), how.own_scales, caches, strict=True):
            if how.absolute not in known:
                known[how.absolute] = own_lists(x, how.absolute, scale, progress, screen)
    of_a, of_b = (known[how.absolute].similarity for known in caches)
    return with_own(forth, of_a, len(b)), with_own(back, of_b, len(a))


def turned_sweeps(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], swept: Sweep, how: How, progress: Progress | None = None
) -> TurnedSweeps:
    """Sweep A·B′ᵀ, where B′ is the turned B, with as many partners as `swept` lists."""
    axes, k = principal_axes(b), swept.rows.score.shape[1]
    tick = None if progress is None else lambda share: progress("turned control", share)

    others = (turned(b, axes, how.seed + turn) for turn in range(how.turns or default_turns(len(a), len(b))))
    with _screen(swept) as screen:
        made = [listing_sweep(a, x, k, absolute=how.absolute, progress=tick, screen=screen) for x in others]
    return TurnedSweeps(axes, tuple(made), how.seed)


def turned_controls(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    swept: Sweep,
    how: How,
    progress: Progress | None = None,
    turns: TurnedSweeps | None = None,
) -> tuple[Controls, Controls]:
    """Return the controls of A → B and of B → A from the turned B alone.

    The rows of A·B′ᵀ hold A's decoys, the columns hold B's: B′ = B R and R is its own inverse, so the columns compare B
    with the turned A. Up to 4,096 latents per side, two more turns give the spread of the means.
    """
    assert swept.cols is not None
    made = (turns or turned_sweeps(a, b, swept, how, progress)).sweeps
    back = [s.cols for s in made if s.cols is not None]
    return _controls(swept.rows, [s.rows for s in made]), _controls(swept.cols, back)


def default_turns(n: int, m: int) -> int:
    """Return the default number of turns: 3 up to 4,096 latents per side, else 1."""
    return 3 if max(n, m) <= SMALL else 1


def own_lists(
    x: Float[Tensor, "n d"],
    absolute: bool = False,
    scale: float = 1.0,
    progress: Progress | None = None,
    screen: ScreenName = "auto",
) -> OwnLists:
    """Return the nine nearest other latents of each row, from a sweep within its dictionary.

    Latents at `SAME` or above are one direction: copies of a latent carry no information on the similarity of
    unrelated latents. If all nine are copies, the row is swept again against only the first latent of each direction.
    """
    tick = None if progress is None else lambda share: progress("own control", share)
    best = listing_sweep(x, None, LISTED, absolute=absolute, progress=tick, screen=screen).rows
    score, index = (t.cpu().numpy() for t in (best.score, best.index))
    same = score * scale >= SAME
    again = np.flatnonzero(same.all(axis=1))
    if len(again):
        firsts = np.flatnonzero(~(same & (index < np.arange(len(x))[:, None])).any(axis=1))
        rows, others = (x[torch.from_numpy(at).to(x.device)] for at in (again, firsts))
        score[again] = listing_sweep(rows, others, LISTED, columns=False, absolute=absolute).rows.score.cpu().numpy()
        same = score * scale >= SAME
    return OwnLists(-np.sort(-np.where(same, -np.inf, score * scale), axis=1), index)


@contextmanager
def _screen(swept: Sweep) -> Iterator[ScreenName]:
    """Yield the screen of the controls: "cpu" if the comparison's sweep chose that screen, else "auto".

    The user did not ask for the screen of the controls, so the ledger states another reason.
    """
    with ledger():
        yield "cpu" if swept.report.screen == "cpu-float32" else "auto"
        made = entries()
    enter(replace(e, why=e.why.replace("asked for", "as in the comparison")) for e in made)


def _controls(best: Best, turned: Sequence[Best]) -> Controls:
    decoys = turned[0].score[:, :LISTED].cpu().numpy().copy()
    return Controls(
        target=best.score[:, :LISTED].cpu().numpy().copy(),
        own=np.full(len(decoys), -np.inf),
        turned=decoys[:, 0].copy(),
        decoys=decoys,
        ratio=1.0,
        turned_means=tuple(float(x.score[:, 0].mean()) for x in turned),
    )


def with_own(controls: Controls, own: np.ndarray, n_targets: int) -> Controls:
    """Add the control of a dictionary's own latents, given their similarities (`own_lists`) and the number of targets.

    If the other dictionary is narrower, decoys are drawn from as many latents as it has: each listed latent is drawn
    with probability `n_targets` / (n − 1), always by the same draw, and the last of each list is always kept.
    """
    ratio = n_targets / max(len(own) - 1, 1)
    if ratio < 1:
        among = np.random.default_rng(0).random(own.shape) < ratio
        among[:, -1] = True
        own = -np.sort(-np.where(among, own, -np.inf), axis=1)
    decoys = -np.sort(-np.concatenate([own, controls.decoys], axis=1), axis=1)[:, :LISTED]
    return replace(controls, own=own[:, 0].copy(), decoys=decoys, ratio=max(1.0, ratio))
