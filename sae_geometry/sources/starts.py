"""Mean cosine of latents to their directions at step 0, where the run saved that state."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.weights import LatentAxis
from sae_geometry.sources.address import Selection
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.layouts.read import open_bundle, read_dictionary


def with_start(d: Dictionary, bundle: Bundle, selection: Selection, latent_axis: LatentAxis | None) -> Dictionary:
    """Return the dictionary with `cosine_to_start` in its metadata, where its run's state at step 0 is on this machine.

    That is the mean over latents i of cos(w_i, w_i at step 0), with latents identified by id.
    """
    if bundle.start is None:
        return d
    try:
        start = read_dictionary(
            open_bundle(replace(bundle, weights=(bundle.start,), sparsity=None, alive_ids={}), latent_axis),
            selection, "all", encoder=False, drop_bad=True,
        )  # fmt: skip
        cosine = _mean_cosine(d, start)
    except (SourceError, ValueError) as error:
        note = f"how far it moved from its start is unknown: {bundle.start.name} cannot be used ({error})"
        return replace(d, notes=(*d.notes, note))
    return replace(d, metadata=MappingProxyType({**d.metadata, "cosine_to_start": cosine}))


def _mean_cosine(d: Dictionary, start: Dictionary) -> float:
    if d.d_in != start.d_in or d.alive.n_total != start.alive.n_total:
        raise ValueError(f"it is {start.alive.n_total:,} × {start.d_in:,}")
    _, here, there = np.intersect1d(d.latent_ids.numpy(), start.latent_ids.numpy(), return_indices=True)
    x, y = d.directions[torch.from_numpy(here)], start.directions[torch.from_numpy(there)]
    return float(torch.einsum("ij,ij->i", x, y).to(torch.float64).mean())
