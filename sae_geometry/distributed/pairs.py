"""Independent pieces of work over the workers that there are, or one after another here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.runner import current_runner

T = TypeVar("T")
Pair = tuple[int, int]


@runtime_checkable
class Spreads(Protocol):
    """A runner that takes whole pairs of dictionaries too."""

    def pairs(
        self,
        work: Callable[[Dictionary, Dictionary, Any], T],
        dictionaries: Sequence[Dictionary],
        todo: Sequence[Pair],
        parameters: Any,
    ) -> Iterator[tuple[Pair, T]]: ...


def spread(
    work: Callable[[Dictionary, Dictionary, Any], T],
    dictionaries: Sequence[Dictionary],
    todo: Sequence[Pair],
    parameters: Any,
) -> Iterator[tuple[Pair, T]]:
    """`work(a, b, parameters)` for every pair, as each is finished: in the order given here, in any on a cluster.

    Args:
        work: a function of a module, so that workers can find it.
        dictionaries: what pairs are made of.
        todo: pairs of positions in `dictionaries`.
        parameters: the third argument of each.

    Example:
        >>> import numpy as np
        >>> from sae_geometry.dictionary import Dictionary
        >>> from sae_geometry.distributed import spread
        >>> d = [Dictionary.from_decoder(np.eye(2, 3), latent_axis=0)] * 2
        >>> list(spread(lambda a, b, power: a.d_in**power, d, [(0, 1)], 2))
        [((0, 1), 9)]
    """
    runner = current_runner()
    if isinstance(runner, Spreads):
        yield from runner.pairs(work, dictionaries, todo, parameters)
        return
    yield from one_by_one(work, dictionaries, todo, parameters)


def one_by_one(
    work: Callable[[Dictionary, Dictionary, Any], T],
    dictionaries: Sequence[Dictionary],
    todo: Sequence[Pair],
    parameters: Any,
) -> Iterator[tuple[Pair, T]]:
    """The pairs of `spread` in this process, in the order given."""
    for i, j in todo:
        yield (i, j), work(dictionaries[i], dictionaries[j], parameters)
