"""numba's compiler with the package's settings: GIL released, and compiled code cached on disk if possible."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

# Maxima may be taken in any order, and no operand is NaN, which the sweep rejects. Infinities keep their meaning.
MAX_IN_ANY_ORDER = {"nnan", "nsz"}
# The error bound of float32 sums holds in any order, with or without fused multiply-add.
SUMS_IN_ANY_ORDER = {"nnan", "ninf", "nsz", "reassoc", "contract"}


def compiled(fastmath: set[str] | bool = False) -> Callable[[F], F]:
    """Return a decorator that compiles on first call, releases the GIL, and caches on disk if a folder is writable."""

    def decorate(function: F) -> F:
        plain = inspect.unwrap(function)  # numba cannot compile an annotation checker's wrapper.
        try:
            return numba.njit(nogil=True, fastmath=fastmath, cache=True)(plain)
        except RuntimeError:  # There is no writable folder for the cache.
            return numba.njit(nogil=True, fastmath=fastmath)(plain)

    return decorate
