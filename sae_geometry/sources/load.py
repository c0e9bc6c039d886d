"""`load`: from one line of text to a dictionary."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.formatting import readable
from sae_geometry.sources.bundle import Context, Echo, Progress
from sae_geometry.sources.layouts.detect import LatentAxis
from sae_geometry.sources.layouts.read import Latents, choose_site, open_bundle, read_dictionary
from sae_geometry.sources.resolve import parse_address, resolve


class OrientationWarning(UserWarning):
    """The axis that counts latents was assumed: the file alone cannot tell."""


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
    """The dictionary at an address.

    Args:
        address: `demo:NAME`, `wandb:entity/project/run[#file]`, `hf://org/repo[@rev][/path]`, `saelens:release/id`,
            `paper:…`, a pasted wandb.ai or huggingface.co URL, or a local path. `::hook` (or `::layer=2`) picks one of
            several dictionaries in a file; `NAME=` in front sets the label.
        latents: "alive" drops the latents known to be dead (none if that is unknown); "all" keeps every one.
        name: label; goes before one set by `NAME=`.
        latent_axis: which axis of the stored decoder counts latents, where the file cannot tell.
        drop_bad: drop latents whose decoder row is zero, NaN or infinite, and record them, instead of raising.
        encoder: read the encoder too; False halves the memory.
        offline: touch no network; what was fetched before is used.
        echo: called with what the address was resolved to, one line at a time.
        progress: called with a file's name and the share of it fetched.

    Returns:
        Dictionary with float32 unit rows [n_latents, d_in] and the original latent ids.

    Raises:
        SourceError: a wrong or ambiguous address, nothing there, a damaged or hostile file; one sentence each.
        ValueError: rows without a direction, unless `drop_bad`.

    Example:
        >>> import sae_geometry as sg
        >>> d = sg.load("demo:local-seed0")
        >>> d.n_latents, d.alive.n_total
        (1491, 1536)
    """
    if latents not in ("alive", "all"):
        raise ValueError(f"latents must be 'alive' or 'all'; got {latents!r}")
    if latent_axis not in (None, 0, 1):
        raise ValueError(f"latent_axis must be 0 or 1; got {latent_axis!r}")
    context = Context(offline, echo, progress)
    parsed = parse_address(address)
    bundle = resolve(parsed, context)
    opened = open_bundle(bundle, latent_axis)
    context.say(f"{parsed.typed} → {bundle.address}{parsed.selection}")
    dictionary = read_dictionary(
        opened, parsed.selection, latents, name=name or parsed.label, drop_bad=drop_bad, encoder=encoder
    )
    dictionary = replace(
        dictionary,
        name=readable(dictionary.name),
        address=None if dictionary.address is None else readable(dictionary.address),
    )
    typed = readable(parsed.typed)
    if typed != dictionary.address:
        dictionary = replace(dictionary, metadata=MappingProxyType({**dictionary.metadata, "address_as_typed": typed}))
    assumed = choose_site(opened, parsed.selection).assumed
    if assumed is not None:
        warnings.warn(f"{dictionary.address}: {assumed}", OrientationWarning, stacklevel=2)
    return dictionary
