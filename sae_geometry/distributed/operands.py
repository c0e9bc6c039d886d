"""Arrays and dictionaries on the workers, each sent once and identified by a hash."""

from __future__ import annotations

import hashlib
import os
import pickle
import uuid
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, Future
from torch import Tensor

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.collect import as_array
from sae_geometry.distributed.errors import NotLoadedError
from sae_geometry.distributed.worker import all_but_weights
from sae_geometry.kernels.settings import current
from sae_geometry.sources import SourceError, load
from sae_geometry.sources.layouts.read import Latents
from sae_geometry.sources.resolve import parse_address

There = Callable[[], Future]
"""Function that returns the future of an operand on the workers, and resends the operand if the workers lost it."""

_LOOK = 5  # seconds between checks for live workers
KEPT = 1 << 30  # bytes of operands cached on the workers between sweeps


class Held:
    """Cache of references to operands on the workers, which load the dictionaries in `load` and receive all others."""

    def __init__(self, client: Client, load: Sequence[Dictionary] = ()) -> None:
        self._client = client
        self._there: dict[str, tuple[Future, int]] = {}
        self._loadable: dict[str, Reference] = {}
        self._sizes: dict[Reference, list[tuple[str, int]]] = {}  # hash and bytes of each array
        for d in load:
            if (where := reference(d)) is not None:
                weights = [x for x in (d.directions, d.encoder_directions) if x is not None]
                self._sizes[where] = [_identity(as_array(x)) for x in weights]
                self._loadable |= {name: where for name, _ in self._sizes[where]}

    def array(self, x: Tensor, together: int) -> There:
        """Return a reference to this array on the workers; the latest `together` operands are never evicted."""
        name, size = _identity(as_array(x))

        def there() -> Future:
            found = self._found(name)
            if found is None:
                self._make_room(size, together)
                found = self._loaded(name) or self._keep(name, self._sent(name, as_array(x)), size)
            return found

        return there

    def dictionary(self, d: Dictionary) -> list[There | None]:
        """Return references to the arguments of `put_together`, with None for missing weights."""
        rest = all_but_weights(d)
        said = pickle.dumps(rest)
        name = hashlib.sha256(said).hexdigest()

        def about() -> Future:
            return self._found(name) or self._keep(name, self._sent(name, rest), len(said))

        weights = (d.directions, d.encoder_directions)
        together = 2 * (1 + sum(x is not None for x in weights))  # A pair has two dictionaries.
        return [*(None if x is None else self.array(x, together) for x in weights), about]

    def forget(self) -> None:
        """Discard all references, so that operands are resent when they are next needed."""
        self._there.clear()

    def load_no_more(self) -> None:
        """Send all operands from now on, since a worker could not load a dictionary."""
        self._loadable.clear()
        self.forget()

    def _found(self, name: str) -> Future | None:
        if name not in self._there or self._there[name][0].status in ("cancelled", "lost", "error"):
            return None
        self._there[name] = self._there.pop(name)  # Keep the order of use for eviction.
        return self._there[name][0]

    def _keep(self, name: str, future: Future, size: int) -> Future:
        self._there[name] = future, size
        return future

    def _make_room(self, size: int, together: int) -> None:
        """Evict the least recently used operands until `size` more bytes fit; keep the latest `together` − 1."""
        while len(self._there) >= together and size + sum(held for _, held in self._there.values()) > KEPT:
            del self._there[next(iter(self._there))]

    def _sent(self, name: str, data: Any) -> Future:
        key = f"sae-geometry-{name[:16]}-{uuid.uuid4().hex[:8]}"
        future: Future = self._client.scatter({key: data}, broadcast=True)[key]
        return future

    def _came(self, future: Future) -> bool:
        """Wait until a worker holds the operand or no worker is left; return whether one holds it."""
        while True:
            try:
                return future.exception(timeout=_LOOK) is None
            except CancelledError:
                return False
            except TimeoutError:
                if not self._client.nthreads():
                    return False

    def _loaded(self, name: str) -> Future | None:
        """Have a worker load the array with its dictionary; return None if loading is disabled or fails."""
        if name not in self._loadable:
            return None
        where = self._loadable[name]
        whole = self._client.submit(load_weights, where, pure=False)
        futures = [self._client.submit(itemgetter(at), whole, pure=False) for at in range(len(self._sizes[where]))]
        if not all(self._came(future) for future in futures):
            self._loadable = {key: value for key, value in self._loadable.items() if value != where}
            return None
        for (part, size), future in zip(self._sizes[where], futures, strict=True):
            self._keep(part, future, size)
        return self._found(name)


def _identity(x: np.ndarray) -> tuple[str, int]:
    """Return a hash of an array's contents and shape, and its size in bytes."""
    return hashlib.sha256(x.data).hexdigest() + str(x.shape), x.nbytes


@dataclass(frozen=True)
class Reference:
    """Address, load options and expected fingerprint of a dictionary for a worker to load."""

    address: str
    latents: Latents
    drop_bad: bool
    encoder: bool
    offline: bool
    fingerprint: str


def reference(d: Dictionary) -> Reference | None:
    """Return a reference by which a worker can load this dictionary; None if the dictionary has no valid address."""
    if d.address is None:
        return None
    try:
        parsed = parse_address(d.address)
    except SourceError:
        return None
    address = d.address
    if parsed.scheme == "local":  # A worker may run in another folder.
        address = f"{Path(os.path.expanduser(parsed.place)).absolute()}{parsed.selection}"
    return Reference(
        address,
        latents="alive" if d.alive.n_dropped_dead else "all",
        drop_bad=bool(d.alive.bad_ids),
        encoder=d.encoder_directions is not None,
        offline=current().offline,
        fingerprint=d.fingerprint,
    )


def load_weights(wanted: Reference) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the decoder and encoder directions, loaded on a worker; raise NotLoadedError if loading fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The client has already shown these warnings.
            found = load(
                wanted.address, wanted.latents, drop_bad=wanted.drop_bad, encoder=wanted.encoder, offline=wanted.offline
            )
    except Exception:  # The message may contain secrets. The client sends the weights instead.
        raise NotLoadedError(wanted.address) from None
    if found.fingerprint != wanted.fingerprint:
        raise NotLoadedError(wanted.address)
    encoder = found.encoder_directions
    return as_array(found.directions), None if encoder is None else as_array(encoder)
