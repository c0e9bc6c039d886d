"""Convert a caller's object to a `Dictionary`, using the same table of layouts as for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import shown
from sae_geometry.io.weights import LatentAxis, plain_tensor
from sae_geometry.sources.address import Selection
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import LayoutError, SourceError
from sae_geometry.sources.files.tensor_file import Entry, TensorFile
from sae_geometry.sources.files.torch_pickle import flatten
from sae_geometry.sources.inspect import spelled
from sae_geometry.sources.layouts.read import Latents, Opened, opened, read_dictionary
from sae_geometry.sources.layouts.table import PER_COORDINATE, PER_LATENT
from sae_geometry.sources.load import load

_NO_LISTS = (str, bytes, bytearray, memoryview)  # These sequences are not lists of numbers.
_ATTRIBUTES = ("W_dec", "W_enc", *PER_LATENT, *PER_COORDINATE)


def as_dictionary(
    obj: Any,
    latents: Latents = "alive",
    *,
    name: str | None = None,
    latent_axis: LatentAxis | None = None,
    drop_bad: bool = False,
) -> Dictionary:
    """Return a `Dictionary` from an address, an array, a mapping or an SAE object.

    - a `Dictionary` is returned unchanged;
    - a string or path is loaded with `load(obj)`;
    - an array or tensor has latents as rows, [n_latents, d_in]; leading axes of length one are dropped;
    - a pandas DataFrame has latents as rows; an index of distinct non-negative integers gives their ids;
    - a mapping of tensors, such as a state dict, is read like a file with the same names. If sizes are ambiguous,
      "W_dec" is [n_latents, d_in] and "W_enc" [d_in, n_latents];
    - an SAE object, such as SAELens's, is read from its state dict or its attributes W_dec and W_enc, and from `cfg`;
    - a SAELens synthetic model, or its feature dictionary, is read as its true features.

    The interpretation is recorded in `.notes`. For other objects use `Dictionary.from_decoder`, which takes the
    orientation as an argument.

    Args:
        obj: any of the inputs above.
        latents: "alive" drops latents known to be dead.
        name: label; by default the object's own, or "dictionary".
        latent_axis: axis of the decoder that indexes latents; set it if sizes are ambiguous.
        drop_bad: drop and record zero and non-finite rows instead of raising an exception.

    Raises:
        ValueError: the object is not supported, holds several dictionaries, or has inconsistent shapes.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> sg.as_dictionary(np.eye(3, 5), name="toy").n_latents
        3
    """
    if isinstance(obj, Dictionary):
        return obj if name is None else obj.renamed(name)
    if isinstance(obj, str | Path):
        return load(obj, latents, name=name, latent_axis=latent_axis, drop_bad=drop_bad)
    found, what = _read(obj, latent_axis)
    if len(found.sites) > 1:
        choices = ", ".join(site.choice for site in found.sites[:8])
        raise LayoutError(f"{what} holds {len(found.sites)} dictionaries ({choices}): pass only one of them")
    site = found.sites[0]
    made = read_dictionary(found, Selection(), latents, name=name or "dictionary", drop_bad=drop_bad)
    if (ids := _index(obj)) is not None and len(ids) == made.alive.n_total:
        made = replace(made, latent_ids=ids[made.latent_ids])
    note = f"read as {site.layout.title}: {spelled(site.decoder)}" + (
        f", {spelled(site.encoder)}" if site.encoder else ""
    )
    notes = made.notes if site.convention or site.assumed else (note, *made.notes)
    return replace(made, address=None, notes=notes)


def _read(obj: Any, latent_axis: LatentAxis | None) -> tuple[Opened, str]:
    """Return the dictionaries in an object, and the words for this object in messages."""
    what = f"the {type(obj).__name__}"
    config = _plain(getattr(obj, "cfg", None))
    tree: Any
    if isinstance(obj, Tensor | np.ndarray):
        what, tree = "the array", obj
    elif isinstance(obj, Mapping):
        what, tree, config = "the mapping", {k: v for k, v in obj.items() if k != "cfg"}, _plain(obj.get("cfg"))
    elif hasattr(obj, "iloc"):
        what, tree = "the data frame", obj.to_numpy(copy=True)
    elif isinstance(obj, Sequence):
        tree = obj
    elif isinstance(features := getattr(getattr(obj, "feature_dict", obj), "feature_vectors", None), Tensor):
        what, tree, config = f"the features of {what}", features.detach(), {}
    else:
        tree = _state(obj)
    bundle = Bundle((), what, "dictionary", where="", config=config)
    tensors = _in_memory(tree, what)
    if not tensors.entries:
        raise ValueError(
            f"cannot make a dictionary from {type(obj).__name__}: give an address, a [n_latents, d_in] array, a "
            "mapping with W_dec, a SAELens SAE, or use Dictionary.from_decoder"
        )
    return opened(bundle, tensors, latent_axis), what


def _index(obj: Any) -> Tensor | None:
    """Return latent ids from a data frame's index; None if the index is not distinct non-negative integers."""
    index = np.asarray(obj.index) if hasattr(obj, "iloc") else np.empty(0, dtype=object)
    if index.dtype.kind not in "iu" or len(np.unique(index)) < len(index) or index.min() < 0:
        return None
    return torch.from_numpy(index.astype(np.int64))


def _state(obj: Any) -> Mapping[str, Any]:
    """Return the state dict of an object or, if it has none, its attributes that are named like SAE weights."""
    state_dict = getattr(obj, "state_dict", None)
    state = state_dict() if callable(state_dict) and not isinstance(obj, type) else None
    if isinstance(state, Mapping) and state:
        return state
    return {k: v for k in _ATTRIBUTES if (v := getattr(obj, k, None)) is not None}


def _plain(cfg: Any) -> Mapping[str, Any]:
    """Return a SAELens configuration as a mapping, from a mapping, a dataclass, or an object with `to_dict`."""
    if isinstance(cfg, Mapping):
        return cfg
    if callable(to_dict := getattr(cfg, "to_dict", None)):
        table = to_dict()
        return table if isinstance(table, Mapping) else {}
    return dict(vars(cfg)) if hasattr(cfg, "__dict__") else {}


def _in_memory(tree: Any, what: str) -> TensorFile:
    """Return the tensors in nested mappings and lists, with keys joined by dots; a bare array has the key "tensor".

    Messages refer to the object as `what`, for example "the mapping".
    """
    bare = what.removeprefix("the ") if isinstance(tree, Tensor | np.ndarray) else None
    try:
        flat = flatten(_arrays(tree), what)
    except RecursionError:
        raise SourceError(f"{what} is nested too deeply, or contains itself: give a flat mapping of arrays") from None
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
    """Replace each list of numbers in nested mappings and lists with an array."""
    if isinstance(tree, Mapping):
        named = {str(k): v for k, v in tree.items()}
        if len(named) < len(tree):
            raise ValueError("two keys of a mapping are equal as strings, such as 1 and '1': rename one of them")
        return {k: _arrays(v) for k, v in named.items()}
    if not isinstance(tree, Sequence) or isinstance(tree, _NO_LISTS):
        return tree
    with suppress(ValueError):  # Rows of different lengths remain lists.
        if _holds_numbers(tree):
            return np.asarray(tree)
    return [_arrays(v) for v in tree]


def _holds_numbers(tree: Sequence[Any]) -> bool:
    first = tree[0] if len(tree) else None
    if isinstance(first, Sequence) and not isinstance(first, _NO_LISTS):
        return _holds_numbers(first)
    return isinstance(first, int | float)


def _as_tensor(value: Any, what: str) -> Any:
    """Convert an array of numbers to a tensor, with integers as float64; return any other object unchanged."""
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            return value
        with suppress(TypeError, ValueError, RuntimeError):  # `plain_tensor` raises for unreadable arrays.
            if np.ndim(value) < 2 and np.asarray(value).dtype.kind not in "biufc":
                return value
    value = plain_tensor(value, what)
    whole = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return value.to(torch.float64) if whole else value
