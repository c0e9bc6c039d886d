"""Independent pairs, distributed over workers or run sequentially in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.settings import current

T = TypeVar("T")
Pair = tuple[int, int]
Work = Callable[[Dictionary, Dictionary, Any], T]


@runtime_checkable
class Spreads(Protocol):
    """A runner that also accepts whole pairs of dictionaries."""

    def pairs(
        self, work: Work[T], dictionaries: Sequence[Dictionary], todo: Sequence[Pair], parameters: Any
    ) -> Iterator[tuple[Pair, T]]: ...


def spread(
    work: Work[T], dictionaries: Sequence[Dictionary], todo: Sequence[Pair], parameters: Any
) -> Iterator[tuple[Pair, T]]:
    """Yield `work(a, b, parameters)` per pair as it completes: in the given order here, in any order on a cluster.

    Args:
        work: a module-level function, so that workers can import it.
        parameters: the third argument of every call.
    """
    runner = current().runner
    if isinstance(runner, Spreads):
        yield from runner.pairs(work, dictionaries, todo, parameters)
        return
    yield from one_by_one(work, dictionaries, todo, parameters)


def one_by_one(
    work: Work[T], dictionaries: Sequence[Dictionary], todo: Sequence[Pair], parameters: Any
) -> Iterator[tuple[Pair, T]]:
    """Run the pairs of `spread` in this process, in the given order."""
    for i, j in todo:
        yield (i, j), work(dictionaries[i], dictionaries[j], parameters)
