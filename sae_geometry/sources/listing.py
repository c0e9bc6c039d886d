"""Expand a pattern, folder, repository or checkpoint to the addresses of the dictionaries in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.errors import AddressError
from sae_geometry.sources.huggingface.repo import separate_places
from sae_geometry.sources.layouts.filenames import separate_checkpoints
from sae_geometry.sources.layouts.read import is_meant, open_bundle
from sae_geometry.sources.local import names_below
from sae_geometry.sources.resolve import parse_address, resolve

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_EXPANDED = 1000


def expanded(address: str) -> list[str]:
    """Expand the braces in an address as a shell does, for example `layers.{0..11}` or `layers.{0,4,8}`.

    An address that is the path of an existing file or folder is not expanded.

    Example:
        >>> expanded("hf://org/repo/layers.{2..4}")
        ['hf://org/repo/layers.2', 'hf://org/repo/layers.3', 'hf://org/repo/layers.4']
    """
    found = _BRACES.search(address)
    if found is None or os.path.exists(os.path.expanduser(address)):
        return [address]
    if found[3] is None:
        first, last = int(found[1]), int(found[2])
        step = 1 if first <= last else -1
        words: Iterable[str] = map(str, range(first, last + step, step))
    else:
        words = found[3].split(",")
    every = (text for word in words for text in expanded(address[: found.start()] + word + address[found.end() :]))
    made = list(islice(every, _MOST_EXPANDED + 1))
    if len(made) > _MOST_EXPANDED:
        raise AddressError(f"{address!r} expands to more than {_MOST_EXPANDED:,} addresses; give a shorter range")
    return made


def checkpoints_at(address: str | Path, context: Context) -> list[str]:
    """Return one address per checkpoint in a folder or Hugging Face repository; otherwise, the given address.

    Weights are neither read nor downloaded.
    """
    parsed = parse_address(address)
    places: list[str] = []
    if parsed.scheme == "hf":
        places = separate_places(parsed, context)
    elif parsed.scheme == "local" and (folder := Path(os.path.expanduser(parsed.place))).is_dir():
        places = [f"{folder.absolute()}/{n}" for n in separate_checkpoints(list(names_below(folder)))]
    return [f"{place}{parsed.selection}" for place in places] or [str(address)]


def dictionaries_at(address: str | Path, context: Context) -> list[tuple[Address, Bundle]]:
    """Return (address, checkpoint) for each dictionary in a checkpoint, as arguments of `load.read`.

    A checkpoint has one dictionary per hook point, source, and output layer or model.
    """
    parsed = parse_address(address)
    chosen, bundle = parsed.selection, resolve(parsed, context)
    sites = open_bundle(bundle, chosen.latent_axis).sites
    found = []
    for site in (s for s in sites if is_meant(s, chosen)):
        outs = [s.out for s in site.decoder if s.out is not None]
        kind = site.layout.out
        words = [site.choice] if site.choice and len(sites) > 1 and chosen.hook is None else []
        more = [f"{kind}={o}" for o in outs] if len(outs) > 1 and getattr(chosen, kind) is None else [""]
        found += ["".join(f"::{w}" for w in (*words, out) if w) for out in more]
    return [(parse_address(f"{address}{words}") if words else parsed, bundle) for words in found or [""]]
