"""Read a probe, a steering vector, token embeddings or single latents as unit vectors with ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.weights import plain_tensor
from sae_geometry.sources.bundle import Context, Echo, Progress
from sae_geometry.sources.errors import LayoutError, SourceError
from sae_geometry.sources.files.open import open_weights
from sae_geometry.sources.load import load
from sae_geometry.sources.resolve import parse_address, resolve

_CHOSEN = re.compile(r"(.+)::(latent|row)=(\d{1,18}(?:,\d{1,18})*)", re.DOTALL)
_MOST_LISTED = 8


def as_vectors(
    vectors: Any,
    *,
    offline: bool = False,
    echo: Echo | None = None,
    progress: Progress | None = None,
) -> Dictionary:
    """Return vectors as a `Dictionary` of unit rows [n, d], whose ids are row numbers or latent ids.

    Args:
        vectors: an array or tensor [d] or [n, d]; a `Dictionary`, which is returned as it is; or an address. An address
            is `RUN::latent=12` (or `::latent=12,40`) for latents of a dictionary, or a .npy, .npz, .pt or safetensors
            file with one vector or matrix; `FILE::KEY` selects one of several, and `FILE::row=3` selects rows.

    Raises:
        SourceError: nothing is at the address, or the file holds several tensors or none.
        ValueError: the input has another shape, a vector is zero or not finite, or a latent or row does not exist.

    Example:
        >>> as_vectors([3.0, 4.0]).directions.tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    if isinstance(vectors, Dictionary):
        return vectors
    if not isinstance(vectors, str | Path):
        return _unit_vectors(plain_tensor(vectors, "vectors"), "vector")
    chosen = _CHOSEN.fullmatch(vectors) if isinstance(vectors, str) else None
    address = vectors if chosen is None else chosen[1]
    ids = None if chosen is None else [int(i) for i in chosen[3].split(",")]
    if chosen is not None and chosen[2] == "latent":
        d = load(address, "all", offline=offline, echo=echo, progress=progress, drop_bad=True)
        return d.select(ids)
    label, found, place = _only_tensor(address, Context(offline, echo, progress), axes=(1, 2, 3))
    made = _unit_vectors(found, label, place)
    return made if ids is None else made.select(ids)


def read_matrix(address: str | Path) -> tuple[str, Tensor]:
    """Return the name and values of a linear map [d_in, d_out], the only matrix in a file or the one at `FILE::KEY`.

    Raises:
        SourceError: nothing is at the address, or the file holds several matrices or none.
    """
    return _only_tensor(address, Context(), axes=(2,))[:2]


def _only_tensor(address: str | Path, context: Context, axes: tuple[int, ...]) -> tuple[str, Tensor, str]:
    """Return name, values and address of the tensor named after `::`, or else of the only one of suitable shape."""
    parsed = parse_address(address)
    bundle = resolve(parsed, context)
    file = open_weights(bundle.weights, [None] * len(bundle.weights))
    fit = [k for k, e in file.entries.items() if e.dtype.is_floating_point and len(e.shape) in axes and e.shape[-1] > 1]
    key = parsed.selection.hook
    if key is None and len(fit) != 1:
        listed = ", ".join(f"::{k}" for k in fit[:_MOST_LISTED]) + (", …" if len(fit) > _MOST_LISTED else "")
        also = ", or ::latent=N for a latent of a dictionary" if 1 in axes else ""
        wanted = "a vector" if 1 in axes else "a matrix"
        raise LayoutError(
            f"{parsed.typed} holds {len(fit)} tensors; choose one by adding {listed}{also}"
            if fit
            else f"{parsed.typed} contains no tensor that could be {wanted}"
        )
    if key is not None and key not in file.entries:
        raise SourceError(f"{parsed.typed} has no tensor {key!r}, only {', '.join([*file.entries][:_MOST_LISTED])}")
    found = file.read(key or fit[0])
    context.say(f"{parsed.typed} → {key or fit[0]} {list(found.shape)} of {bundle.address}")
    return parsed.label or bundle.name, found, f"{bundle.address}{parsed.selection}"


def _unit_vectors(values: Tensor, name: str, address: str | None = None) -> Dictionary:
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (1, 2) or 0 in values.shape or values.is_complex():
        raise ValueError(
            f"vectors must be real numbers of shape [d] or [n, d]; got {values.dtype} of shape {list(values.shape)}"
        )
    rows = values.reshape(-1, values.shape[-1]).to(torch.float64)
    without = (~(torch.isfinite(rows).all(dim=1) & (rows != 0).any(dim=1))).nonzero().flatten().tolist()
    if without:
        listed = ", ".join(map(str, without[:_MOST_LISTED])) + (", …" if len(without) > _MOST_LISTED else "")
        raise ValueError(f"{name!r} has rows that are zero or not finite ({listed}): remove them, or choose other rows "
                         "with ::row=N")  # fmt: skip
    return Dictionary.from_decoder(rows, latent_axis=0, name=name, address=address)
