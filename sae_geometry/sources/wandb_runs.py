"""Checkpoints of Weights & Biases runs: which file, from where, and what the run says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.cache_folder import run_folder, safe_path
from sae_geometry.sources.containers import open_tensors
from sae_geometry.sources.context import Context
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.network import RefusedError, origin_of
from sae_geometry.sources.run_record import RUN_RECORD_NAME, RunRecord, read_record, write_record
from sae_geometry.sources.transfer import RemoteFile, fetch_file, locked
from sae_geometry.sources.wandb_host import api_key, base_url, credentials_for
from sae_geometry.sources.wandb_keyless import KeylessClient
from sae_geometry.sources.weights_names import checkpoints_in_order, choose_weights, companions, looks_like_weights


@runtime_checkable
class RunClient(Protocol):
    """Whoever can say what a run holds."""

    def run(self, path: str) -> RunRecord: ...

    def files(self, path: str) -> list[RemoteFile]: ...


@dataclass(frozen=True)
class FetchedRun:
    """A run's files on disk."""

    record: RunRecord
    folder: Path
    weights: tuple[str, ...]


def client() -> RunClient:
    """The wandb client where a key is configured, else plain HTTPS."""
    key = api_key()
    if key is None:
        return KeylessClient()
    from sae_geometry.sources.wandb_client import SignedInClient

    return SignedInClient(key)


def bundle_wandb(address: Address, context: Context) -> Bundle:
    """The checkpoint of a run: `#file`, or the one with the largest number.

    Raises:
        SourceError: no such run or file, no access, or no whole copy of it.
    """
    fetched = fetch_run(address.place, context, file=address.path)
    name = fetched.weights[0]
    record = fetched.record
    return Bundle(
        tuple(fetched.folder / safe_path(n) for n in fetched.weights),
        address=f"wandb:{address.place}#{name}",
        name=record.name or address.place.rpartition("/")[2],
        where=f"{address.place}/{name}",
        config=record.config,
        alive_ids=record.alive_ids,
        alive_source=record.alive_source,
        metadata=record.metadata,
    )


def fetch_run(run: str, context: Context, *, file: str | None = None, every: bool = False) -> FetchedRun:
    """Bring a run's checkpoint (or every one) and its record into the cache, if they are not there.

    Args:
        run: "entity/project/run".
        context: offline or not, and whom to tell.
        file: one file by name; by default the last checkpoint.
        every: all checkpoints named by number.

    Raises:
        SourceError: as `bundle_wandb`.
    """
    folder = run_folder(origin_of(base_url()).partition("://")[2], run)
    record = read_record(folder / RUN_RECORD_NAME)
    if record is not None and record.weights and (context.offline or record.state == "finished"):
        names = _wanted(record.weights, run, file, every)
        if all((folder / safe_path(n)).is_file() for n in names):
            return FetchedRun(record, folder, names)
    if context.offline:
        raise SourceError(f"wandb:{run}{f'#{file}' if file else ''} is not in the cache {folder}; leave out --offline")
    asked = client()
    remote = {f.name: f for f in asked.files(run)}
    record = replace(asked.run(run), weights=tuple(sorted(n for n in remote if looks_like_weights(n))))
    names = _wanted(list(remote), run, file, every)
    credentials = credentials_for(api_key())
    for name in names:
        target = folder / safe_path(name)
        context.say(f"fetching {name} from {origin_of(remote[name].url)}")
        check = open_tensors if looks_like_weights(name) else None
        fetch_file(remote[name], target, credentials=credentials, check=check, progress=context.progress)
    _keep(record, folder / RUN_RECORD_NAME)
    return FetchedRun(record, folder, names)


def _keep(record: RunRecord, path: Path) -> None:
    with locked(path):
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(write_record(record), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _wanted(names: Sequence[str], run: str, file: str | None, every: bool) -> tuple[str, ...]:
    ordered = checkpoints_in_order(names)
    if file is not None:
        if file not in names:
            near = ordered[-3:] or [n for n in names if looks_like_weights(n)][:3]
            raise RefusedError(f"wandb:{run} has no file {file!r}{'; it has ' + ', '.join(near) if near else ''}", 404)
        return companions(file, names)
    if every:
        if not ordered:
            raise SourceError(f"wandb:{run} has no checkpoints named samples_N.pt among its {len(names):,} files")
        return tuple(ordered)
    return (ordered[-1],) if ordered else choose_weights(names, f"wandb:{run}")
