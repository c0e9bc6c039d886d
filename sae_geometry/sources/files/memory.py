"""Present tensors in memory as a tensor file, so that the same table of layouts applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_geometry.io.escaping import shown
from sae_geometry.io.weights import plain_tensor
from sae_geometry.sources.files.tensor_file import Entry, TensorFile
from sae_geometry.sources.files.torch_pickle import flatten


def in_memory(tree: Any, what: str) -> TensorFile:
    """Return the tensors of nested tables and lists, flattened with dots; a bare array gets the key "tensor".

    Args:
        tree: tensors, arrays, lists of numbers, and tables or lists of these.
        what: name of the object in messages, "the mapping".

    Raises:
        SourceError: the object is nested too deeply.
        ValueError: an array that is not a dense array of numbers.
    """
    bare = what.removeprefix("the ") if isinstance(tree, Tensor | np.ndarray) else None
    flat = flatten(_arrays(tree), what)
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
    if not isinstance(tree, Sequence) or isinstance(tree, str):
        return tree
    try:
        array = np.asarray(tree) if _holds_numbers(tree) else None
    except ValueError:  # rows differ in length
        array = None
    return [_arrays(v) for v in tree] if array is None else array


def _holds_numbers(tree: Sequence[Any]) -> bool:
    first = tree[0] if len(tree) else None
    return isinstance(first, int | float) or (isinstance(first, Sequence) and len(first) > 0 and _holds_numbers(first))


def _as_tensor(value: Any, what: str) -> Any:
    """Return a floating-point tensor for an array of numbers; lists of names and other objects unchanged."""
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            return value
        if np.ndim(value) < 2 and np.asarray(value).dtype.kind not in "biufc":
            return value
    value = plain_tensor(value, what)
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return value.to(torch.float64) if whole else value
