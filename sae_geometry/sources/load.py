"""Load a dictionary from an address."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import readable
from sae_geometry.io.labels import Labels
from sae_geometry.io.weights import LatentAxis
from sae_geometry.kernels.settings import torch_device
from sae_geometry.sources.address import Address, Selection
from sae_geometry.sources.bundle import Bundle, Context, Echo, Progress
from sae_geometry.sources.layouts.read import Latents, choose_site, open_bundle, read_dictionary
from sae_geometry.sources.resolve import parse_address, resolve


class OrientationWarning(UserWarning):
    """The file is ambiguous, so the axis that indexes latents was assumed."""


def load(
    address: str | Path,
    latents: Latents = "alive",
    *,
    name: str | None = None,
    latent_axis: LatentAxis | None = None,
    drop_bad: bool = False,
    encoder: bool = True,
    offline: bool = False,
    echo: Echo | None = None,
    progress: Progress | None = None,
) -> Dictionary:
    """Load the dictionary at an address.

    Args:
        address: `demo:NAME`, `wandb:entity/project/run[#file]` or `wandb:entity/project/artifact:v3`,
            `hf://org/repo[@rev][/path]`, `saelens:release/id`, `paper:…`, a pasted wandb.ai or huggingface.co URL, or a
            local path. `::hook` (or `::layer=2`) selects one of several dictionaries in a file, `::latent_axis=1` sets
            `latent_axis`, and a prefix `NAME=` sets the label.
        latents: "alive" drops latents known to be dead (none if unknown); "all" returns every latent.
        name: label; takes precedence over `NAME=`.
        latent_axis: axis of the stored decoder that indexes latents; set it if the file is ambiguous.
        drop_bad: drop and record latents whose decoder row is zero, NaN or infinite, instead of raising an exception.
        encoder: whether to read the encoder too; without it, a dictionary takes half the memory.
        offline: use only cached files, not the network.
        echo: called with one line of text per step.
        progress: called with a file's name and its downloaded share.

    A table of labels next to a local checkpoint, `ae.labels.parquet` for `ae.pt` (see `Labels.save`), is read as well.

    Returns:
        Dictionary with float32 unit rows [n_latents, d_in], on the device of the settings, and the original latent ids.

    Raises:
        SourceError: the address is wrong or ambiguous, nothing is there, or a file is damaged or malicious.
        ValueError: a row is zero or not finite (without `drop_bad`), or the device in the settings is not available.

    Example:
        >>> import sae_geometry as sg
        >>> d = sg.load("demo:local-seed0")
        >>> d.n_latents, d.alive.n_total
        (1536, 1536)
    """
    if latents not in ("alive", "all"):
        raise ValueError(f"latents must be 'alive' or 'all'; got {latents!r}")
    if latent_axis not in (None, 0, 1):
        raise ValueError(f"latent_axis must be 0 or 1; got {latent_axis!r}")
    torch_device()  # Raise before any download if the device is not available.
    context = Context(offline, echo, progress)
    parsed = parse_address(address)
    if latent_axis is not None:  # Record the axis in the dictionary's address.
        parsed = replace(parsed, selection=replace(parsed.selection, latent_axis=latent_axis))
    return read(parsed, resolve(parsed, context), latents, context, name=name, drop_bad=drop_bad, encoder=encoder)


def read(
    address: Address,
    bundle: Bundle,
    latents: Latents,
    context: Context,
    *,
    name: str | None = None,
    drop_bad: bool = False,
    encoder: bool = True,
) -> Dictionary:
    """Read the dictionary at an address whose files are already resolved as `bundle`; see `load`."""
    device = torch_device()
    opened = open_bundle(bundle, address.selection.latent_axis)
    context.say(f"{address.typed} → {bundle.address}{address.selection}")
    dictionary = read_dictionary(
        opened, address.selection, latents, name=name or address.label, drop_bad=drop_bad, encoder=encoder
    )
    if bundle.labels is not None:
        dictionary = dictionary.labeled(Labels.read(bundle.labels))
    if encoder:  # To save memory, do not read a second checkpoint either.
        dictionary = _with_start(dictionary, bundle, address.selection)
    resolved, typed = readable(f"{bundle.address}{address.selection}"), readable(address.typed)
    dictionary = replace(dictionary, name=readable(dictionary.name), address=resolved)
    if typed != resolved:
        dictionary = replace(dictionary, metadata=MappingProxyType({**dictionary.metadata, "address_as_typed": typed}))
    assumed = choose_site(opened, address.selection).assumed
    if assumed is not None:
        warnings.warn(f"{dictionary.address}: {assumed}", OrientationWarning, stacklevel=3)
    return dictionary if device == "cpu" else dictionary.to(device)


def _with_start(d: Dictionary, bundle: Bundle, selection: Selection) -> Dictionary:
    """Add `cosine_to_start` to a dictionary's metadata if the run's checkpoint at step 0 is on this machine.

    `cosine_to_start` is the mean of cos(w_i, w_i at step 0) over the latent ids i that both checkpoints have.
    """
    if bundle.start is None:
        return d
    try:
        opened = open_bundle(
            replace(bundle, weights=(bundle.start,), sparsity=None, alive_ids={}), selection.latent_axis
        )
        start = read_dictionary(opened, selection, "all", encoder=False, drop_bad=True)
        if d.d_in != start.d_in or d.alive.n_total != start.alive.n_total:
            raise ValueError(f"the decoder there is {start.alive.n_total:,} × {start.d_in:,}")
    except ValueError as error:
        note = f"the cosine to the initial weights is unknown: {bundle.start.name} cannot be used ({error})"
        return replace(d, notes=(*d.notes, note))
    _, here, there = np.intersect1d(d.latent_ids.numpy(), start.latent_ids.numpy(), return_indices=True)
    x, y = d.directions[torch.from_numpy(here)], start.directions[torch.from_numpy(there)]
    cosine = float(torch.einsum("ij,ij->i", x, y).to(torch.float64).mean())
    return replace(d, metadata=MappingProxyType({**d.metadata, "cosine_to_start": cosine}))
