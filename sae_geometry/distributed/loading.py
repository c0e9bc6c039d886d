"""Dictionaries that workers load from their addresses, where the user says so: the weights never leave the client.

One worker loads, the others get it from that one. What it loaded must have the client's fingerprint; if it has not, or
nothing can be loaded there (no network, no credentials, no such path), the weights are sent as ever. Only the address
travels: a worker uses credentials of its own.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.collect import as_array
from sae_geometry.distributed.errors import NotLoadedError
from sae_geometry.distributed.worker import weights_of
from sae_geometry.sources import SourceError, load
from sae_geometry.sources.layouts.read import Latents
from sae_geometry.sources.resolve import parse_address


@dataclass(frozen=True)
class Reference:
    """Where a dictionary can be loaded, how it was, and what its fingerprint must be."""

    address: str
    latents: Latents
    drop_bad: bool
    encoder: bool
    offline: bool
    fingerprint: str


def reference(d: Dictionary, *, offline: bool = False) -> Reference | None:
    """How a worker can load this dictionary; None where its address is not known or means two things.

    Args:
        d: the dictionary.
        offline: whether a worker must not touch the network for it.

    Example:
        >>> import sae_geometry as sg
        >>> from sae_geometry.distributed.operands import reference
        >>> reference(sg.load("demo:local-seed0")).address
        'demo:local-seed0'
    """
    if d.address is None:
        return None
    try:
        parsed = parse_address(d.address)
    except SourceError:
        return None
    address = d.address
    if parsed.scheme == "local":  # a worker may have another current folder
        address = f"{Path(parsed.place).expanduser().absolute()}{parsed.selection}"
    return Reference(
        address,
        latents="alive" if d.alive.n_dropped_dead else "all",
        drop_bad=bool(d.alive.bad_ids),
        encoder=d.encoder_directions is not None,
        offline=offline,
        fingerprint=d.fingerprint,
    )


def load_weights(wanted: Reference) -> tuple[np.ndarray, np.ndarray | None]:
    """The decoder and encoder directions of what is at the address, on a worker.

    Raises:
        NotLoadedError: it cannot be loaded here, or it is another dictionary.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the client has been told
            found = load(
                wanted.address, wanted.latents, drop_bad=wanted.drop_bad, encoder=wanted.encoder, offline=wanted.offline
            )
    except Exception:  # whatever it is, the client can send the weights; and it may name what is not for others
        raise NotLoadedError(wanted.address) from None
    if found.fingerprint != wanted.fingerprint:
        raise NotLoadedError(wanted.address)
    directions, encoder = weights_of(found)
    return as_array(directions), None if encoder is None else as_array(encoder)
