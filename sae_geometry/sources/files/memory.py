"""Present tensors in memory as a tensor file, so that the same table of layouts applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_geometry.io.escaping import shown
from sae_geometry.io.weights import plain_tensor
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.tensor_file import Entry, TensorFile
from sae_geometry.sources.files.torch_pickle import flatten

_NO_LISTS = (str, bytes, bytearray, memoryview)  # sequences whose items are no values


def in_memory(tree: Any, what: str) -> TensorFile:
    """Return the tensors of nested tables and lists, flattened with dots; a bare array gets the key "tensor".

    `what` names the object in messages, "the mapping".
    """
    bare = what.removeprefix("the ") if isinstance(tree, Tensor | np.ndarray) else None
    try:
        flat = flatten(_arrays(tree), what)
    except RecursionError:
        raise SourceError(f"{what} is nested too deeply, or contains itself: give a plain table of arrays") from None
    values = {key: _as_tensor(value, bare or f"entry {shown(key)}") for key, value in flat.items()}
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    return TensorFile(
        Path(what),
        "memory",
        {key: Entry(tuple(t.shape), t.dtype) for key, t in tensors.items()},
        lambda key, place=None: tensors[key] if place is None else tensors[key].select(*place),
        extras={k: v for k, v in values.items() if isinstance(v, str | int | float | bool)},
    )


def _arrays(tree: Any) -> Any:
    """Return the tree with lists of numbers as arrays."""
    if isinstance(tree, Mapping):
        named = {str(k): v for k, v in tree.items()}
        if len(named) < len(tree):
            raise ValueError("a table has two keys that are the same as text, such as 1 and '1': rename one of them")
        return {k: _arrays(v) for k, v in named.items()}
    if not isinstance(tree, Sequence) or isinstance(tree, _NO_LISTS):
        return tree
    try:
        array = np.asarray(tree) if _holds_numbers(tree) else None
    except ValueError:  # rows differ in length
        array = None
    return [_arrays(v) for v in tree] if array is None else array


def _holds_numbers(tree: Sequence[Any]) -> bool:
    first = tree[0] if len(tree) else None
    if isinstance(first, Sequence) and not isinstance(first, _NO_LISTS):
        return _holds_numbers(first)
    return isinstance(first, int | float)


def _as_tensor(value: Any, what: str) -> Any:
    """Return a floating-point tensor for an array of numbers; lists of names and other objects unchanged."""
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            return value
        with suppress(TypeError, ValueError, RuntimeError):  # an array of another library, which `plain_tensor` names
            if np.ndim(value) < 2 and np.asarray(value).dtype.kind not in "biufc":
                return value
    value = plain_tensor(value, what)
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return value.to(torch.float64) if whole else value
