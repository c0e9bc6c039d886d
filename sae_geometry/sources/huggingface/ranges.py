"""Fetch single tensors of a model on Hugging Face by byte ranges of its safetensors files, and cache them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_geometry.io.atomic_folder import whole_file
from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Context
from sae_geometry.sources.cache import cache_root, safe_path, wrote
from sae_geometry.sources.checksums import checksum, intact, read_sealed, write_sealed
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.safetensors import Header, read_header
from sae_geometry.sources.http import with_tries
from sae_geometry.sources.huggingface.client import Watch, bounded
from sae_geometry.sources.huggingface.repo import Repo, bring, client_name, remember, repo_of
from sae_geometry.sources.language_model import (
    INDEX,
    WHOLE,
    ModelFiles,
    ModelWeights,
    model_weights,
    read_small_json,
    shard_of_each,
)

_MOST_TENSOR = 1 << 36
_SMALL = ("config.json", "tokenizer.json")


def remote_model_weights(address: Address, context: Context) -> ModelWeights:
    """Return the unembedding and final norm of a model at an hf:// address, and cache both by commit."""
    with bounded(address, context) as watch:
        repo = repo_of(address, watch)
        small = {n: bring(repo, n, watch) for n in (*_SMALL, INDEX) if n in repo.files}
        if not watch.context.offline and repo.guessed is None and small:
            remember(repo, address.revision or "main", next(iter(small)), watch)
        where = f"{repo.name} at commit {repo.commit[:12]}"
        context.say(f"reading the unembedding of {where}")
        tensors = _Tensors(repo, watch)
        index = read_small_json(small[INDEX]) if INDEX in small else {}
        names = None if watch.context.offline else list(repo.files)  # Shards are not in the client's cache.
        owners = shard_of_each(index, names, where) or tensors.keys_of(WHOLE)
        files = ModelFiles(
            where,
            read_small_json(small["config.json"]) if "config.json" in small else {},
            tuple(owners),
            lambda key: tensors.read(key, owners[key]),
            small.get("tokenizer.json"),
        )
        return model_weights(files)


def _is_whole(found: Any) -> bool:
    """Return whether a record describes a tensor with a valid type, shape and checksum."""
    if not isinstance(found, dict) or not isinstance(getattr(torch, str(found.get("dtype")), None), torch.dtype):
        return False
    shape = found.get("shape")
    return isinstance(found.get("sha256"), str) and isinstance(shape, list) and all(type(n) is int for n in shape)


class _Tensors:
    """Tensors of one commit, read from the cache or fetched by byte ranges.

    For each shard, the cache has a file `SHARD.tensors.json` with all keys and the type, shape and SHA-256 of each
    fetched tensor. The tensor's bytes are in a separate file next to it.
    """

    def __init__(self, repo: Repo, watch: Watch) -> None:
        self.repo, self.watch, self.context = repo, watch, watch.context
        self.folder = cache_root() / "huggingface" / safe_path(repo.name) / repo.commit
        self.header: Callable[[str], Header] = cache(self._header)

    def keys_of(self, shard: str) -> dict[str, str]:
        """Return a dict from the name of each tensor in a shard to the name of the shard."""
        known = self._record(shard)["keys"]
        if not known and self.context.offline:
            raise SourceError(f"{shard} of {self.repo.name} is not in the cache; leave out --offline")
        return dict.fromkeys(known or self.header(shard).entries, shard)

    def read(self, key: str, shard: str) -> Tensor:
        """Return a tensor from the cache, or fetch it if it is missing or damaged there."""
        record = self._record(shard)
        found = record["tensors"].get(key)
        path = self.folder / safe_path(f"{shard}.{key}.bin")
        if found is None or not path.is_file() or not intact(path, str(found["sha256"])):
            if self.context.offline:
                what = "damaged in" if found is not None and path.is_file() else "not in"
                raise SourceError(f"{key} of {self.repo.name} is {what} the cache; leave out --offline")
            found = self._fetch(key, shard, path)
            tensors = {**record["tensors"], key: found}
            keys = list(self.header(shard).entries)
            write_sealed(self.folder / f"{shard}.tensors.json", {"keys": keys, "tensors": tensors})
        dtype = getattr(torch, str(found["dtype"]))
        raw = bytearray(path.read_bytes())
        return torch.frombuffer(raw, dtype=dtype).reshape([int(n) for n in found["shape"]])

    def _record(self, shard: str) -> Mapping[str, Any]:
        """Return the cached record of a shard, without invalid entries, whose tensors must be refetched."""
        path = self.folder / safe_path(f"{shard}.tensors.json")
        record = (read_sealed(path) if path.is_file() else None) or {}
        keys, tensors = record.get("keys"), record.get("tensors")
        return {
            "keys": [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else [],
            "tensors": {k: t for k, t in tensors.items() if _is_whole(t)} if isinstance(tensors, dict) else {},
        }

    def _fetch(self, key: str, shard: str, path: Path) -> dict[str, Any]:
        header = self.header(shard)
        if key not in header.entries:
            raise SourceError(f"{shard} of {self.repo.name} does not contain {key}, although {INDEX} lists it there")
        entry = header.entries[key]
        if not 0 < entry.n_bytes <= _MOST_TENSOR:
            raise SourceError(f"{key} of {self.repo.name} has {entry.n_bytes:,} bytes; expected 1 to {_MOST_TENSOR:,}")
        wrote(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        raw, _ = self._range(shard, header.start[key], entry.n_bytes)
        with whole_file(path, ".half-") as file:
            file.write(raw)
        return {"dtype": str(entry.dtype).removeprefix("torch."), "shape": list(entry.shape), "sha256": checksum(path)}

    def _header(self, shard: str) -> Header:
        first, size = self._range(shard, 0, 8)
        return read_header(lambda start, n: first if start == 0 else self._range(shard, start, n)[0], size, shard)

    def _range(self, shard: str, start: int, n: int) -> tuple[bytearray, int]:
        """Return `n` bytes of a shard from byte `start`, and the size of the whole shard."""
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(filename=shard, revision=self.repo.commit, **client_name(self.repo.name))
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{start + n - 1}", "Accept-Encoding": "identity"}

        def attempt() -> tuple[bytearray, int]:
            raw = bytearray()
            self.watch.made.clear()  # Other ranges of the same file do not count as retries.
            try:
                with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
                    if answer.status_code == 200:
                        raise SourceError(f"the server of {self.repo.name} does not support range requests for {shard}")
                    answer.raise_for_status()
                    stated = answer.headers.get("content-range", "")
                    span, _, whole = stated.removeprefix("bytes ").partition("/")
                    if span != f"{start}-{start + n - 1}" or not whole.isdecimal():
                        raise SourceError(f"the server of {self.repo.name} sent a wrong range of {shard}; refused")
                    for piece in answer.iter_bytes(1 << 20):
                        raw += piece
                        if self.context.progress is not None and n > 1 << 20:
                            self.context.progress(shard, len(raw) / n)
            except Exception as error:
                if "Transport" not in {c.__name__[:9] for c in type(error).__mro__}:
                    raise
                raise ConnectionError("the connection was lost") from error
            if len(raw) != n:
                raise ConnectionError(f"only {len(raw):,} of {n:,} bytes arrived")
            return raw, int(whole)

        return self.watch.within(lambda: with_tries(f"fetching a part of {shard}", attempt))
