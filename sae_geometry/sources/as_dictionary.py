"""Whatever a caller has in hand, as a `Dictionary`, by stated conventions and never by a guess."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.sources.layouts.config import first
from sae_geometry.sources.layouts.read import Latents
from sae_geometry.sources.load import load

_ROWS = "a bare array: its rows were taken as latents"
_SAELENS = "W_dec was taken as [n_latents, d_in] and W_enc as [d_in, n_latents], SAELens's orientation"


def as_dictionary(
    obj: Any, latents: Latents = "alive", *, name: str | None = None, drop_bad: bool = False
) -> Dictionary:
    """A `Dictionary` from an address, an array, a mapping or a SAELens object.

    - a `Dictionary`: itself;
    - text or a path: `load(obj)`;
    - a two-axis array or tensor: rows are latents, [n_latents, d_in];
    - a mapping with "W_dec" [n_latents, d_in] and perhaps "W_enc" [d_in, n_latents];
    - an object with attributes of those names and perhaps `cfg` (a SAELens SAE).

    The convention taken is recorded in `.notes`. For anything else use `Dictionary.from_decoder`, which takes the
    orientation as an argument.

    Args:
        obj: any of the above.
        latents: "alive" drops latents known to be dead.
        name: label; otherwise the object's own, or "dictionary".
        drop_bad: drop and record zero and non-finite rows instead of raising.

    Raises:
        ValueError: nothing of the above, or shapes that contradict the convention.

    Example:
        >>> import numpy as np, sae_geometry as sg
        >>> sg.as_dictionary(np.eye(3, 5), name="toy").notes
        ('a bare array: its rows were taken as latents',)
    """
    if isinstance(obj, Dictionary):
        return obj if name is None else obj.renamed(name)
    if isinstance(obj, str | Path):
        return load(obj, latents, name=name, drop_bad=drop_bad)
    if isinstance(obj, torch.Tensor | np.ndarray):
        return Dictionary.from_decoder(obj, latent_axis=0, name=name or "dictionary", notes=(_ROWS,), drop_bad=drop_bad)
    table = obj if isinstance(obj, Mapping) else {k: getattr(obj, k, None) for k in ("W_dec", "W_enc", "cfg")}
    if table.get("W_dec") is None:
        raise ValueError(
            f"a dictionary cannot be made from {type(obj).__name__}: give an address, a [n_latents, d_in] array, a "
            "mapping with W_dec, a SAELens SAE, or use Dictionary.from_decoder"
        )
    config = _plain(table.get("cfg"))
    return Dictionary.from_decoder(
        table["W_dec"],
        latent_axis=0,
        encoder=table.get("W_enc"),
        encoder_latent_axis=1,
        name=name or "dictionary",
        hook_point=first(config, ("metadata.hook_name_out", "hook_name_out", "metadata.hook_name", "hook_name"), str),
        model=first(config, ("metadata.model_name", "model_name"), str),
        notes=(_SAELENS,),
        drop_bad=drop_bad,
    )


def _plain(cfg: Any) -> Mapping[str, Any]:
    """A SAELens configuration as a table, whether it is one, a dataclass, or an object that knows how."""
    if isinstance(cfg, Mapping):
        return cfg
    if callable(to_dict := getattr(cfg, "to_dict", None)):
        table = to_dict()
        return table if isinstance(table, Mapping) else {}
    return dict(vars(cfg)) if hasattr(cfg, "__dict__") else {}
