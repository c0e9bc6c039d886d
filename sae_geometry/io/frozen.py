"""Make arrays and mappings read-only, so that frozen dataclasses are immutable."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a read-only view of an array."""
    view = array.view()
    view.flags.writeable = False
    return view


def frozen(table: Mapping[Any, Any]) -> MappingProxyType[Any, Any]:
    """Return a read-only copy of a mapping, which can be pickled and deep-copied."""
    return MappingProxyType(dict(table))


copyreg.pickle(MappingProxyType, lambda table: (frozen, (dict(table),)))


def freeze(result: object) -> None:
    """Make the array and mapping fields of a frozen dataclass read-only."""
    for name, value in vars(result).items():
        if isinstance(value, np.ndarray):
            object.__setattr__(result, name, read_only(value))
        elif isinstance(value, dict):
            object.__setattr__(result, name, frozen(value))
