"""Run independent pairs on workers, or one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.settings import current

T = TypeVar("T")
Pair = tuple[int, int]
Work = Callable[[Dictionary, Dictionary, Any], T]


def spread(
    work: Work[T], dictionaries: Sequence[Dictionary], todo: Sequence[Pair], parameters: Any
) -> Iterator[tuple[Pair, T]]:
    """Yield each pair with the result of `work(a, b, parameters)`; on a cluster, in any order.

    `work` must be a module-level function, so that workers can import it.
    """
    run = getattr(current().runner, "pairs", one_by_one)  # A runner may support only sweeps.
    yield from run(work, dictionaries, todo, parameters)


def one_by_one(
    work: Work[T], dictionaries: Sequence[Dictionary], todo: Sequence[Pair], parameters: Any
) -> Iterator[tuple[Pair, T]]:
    """Run pairs in this process, in the given order; yield each with its result."""
    for i, j in todo:
        yield (i, j), work(dictionaries[i], dictionaries[j], parameters)
