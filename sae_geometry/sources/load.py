"""Load a dictionary from an address."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.escaping import readable
from sae_geometry.io.labels import Labels
from sae_geometry.io.weights import LatentAxis
from sae_geometry.kernels.settings import torch_device
from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle, Context, Echo, Progress
from sae_geometry.sources.layouts.read import Latents, choose_site, open_bundle, read_dictionary
from sae_geometry.sources.resolve import parse_address, resolve
from sae_geometry.sources.starts import with_start


class OrientationWarning(UserWarning):
    """The latent axis was assumed, because the file is ambiguous."""


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
            local path. `::hook` (or `::layer=2`) picks one of several dictionaries in a file, `::latent_axis=1` is
            `latent_axis`; `NAME=` in front sets the label.
        latents: "alive" drops latents known to be dead (none if unknown); "all" returns every latent.
        name: label; takes precedence over `NAME=`.
        latent_axis: axis of the stored decoder that indexes latents, where the file is ambiguous.
        drop_bad: drop latents whose decoder row is zero, NaN or infinite, and record them, instead of raising.
        encoder: whether to read the encoder too; False halves the memory.
        offline: do not use the network; cached files are used.
        echo: called with the resolved address, one line at a time.
        progress: called with a file's name and its downloaded share.

    A table of labels next to a local checkpoint, `ae.labels.parquet` for `ae.pt` (see `Labels.save`), comes with it.

    Returns:
        Dictionary with float32 unit rows [n_latents, d_in], on the device of the settings, and the original latent ids.

    Raises:
        SourceError: the address is wrong or ambiguous, nothing is there, or a file is damaged or hostile; one sentence
            each.
        ValueError: zero or non-finite rows, unless `drop_bad`, or no such device here.

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
    torch_device()  # refuses a device that is not here before anything is fetched
    context = Context(offline, echo, progress)
    parsed = parse_address(address)
    if latent_axis is not None:  # recorded in addresses
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
    """Read the dictionary at an address that has been resolved to `bundle`; see `load`."""
    device, latent_axis = torch_device(), address.selection.latent_axis
    opened = open_bundle(bundle, latent_axis)
    context.say(f"{address.typed} → {bundle.address}{address.selection}")
    dictionary = read_dictionary(
        opened, address.selection, latents, name=name or address.label, drop_bad=drop_bad, encoder=encoder
    )
    if bundle.labels is not None:
        dictionary = dictionary.labeled(Labels.read(bundle.labels))
    if encoder:  # a caller without encoders should not read a second file either
        dictionary = with_start(dictionary, bundle, address.selection, latent_axis)
    dictionary = replace(
        dictionary,
        name=readable(dictionary.name),
        address=None if dictionary.address is None else readable(dictionary.address),
    )
    typed = readable(address.typed)
    if typed != dictionary.address:
        dictionary = replace(dictionary, metadata=MappingProxyType({**dictionary.metadata, "address_as_typed": typed}))
    assumed = choose_site(opened, address.selection).assumed
    if assumed is not None:
        warnings.warn(f"{dictionary.address}: {assumed}", OrientationWarning, stacklevel=3)
    return dictionary if device == "cpu" else dictionary.to(device)
