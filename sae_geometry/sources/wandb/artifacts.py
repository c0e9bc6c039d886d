"""Download checkpoints from versions of W&B artifacts, with the metadata of the artifact."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle, Context
from sae_geometry.sources.cache import safe_path
from sae_geometry.sources.checksums import read_sealed, write_sealed
from sae_geometry.sources.download import RemoteFile, fetch_file, in_cache, locked
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.open import open_tensors
from sae_geometry.sources.http import RefusedError, origin_of
from sae_geometry.sources.layouts.filenames import (
    checkpoints_in_order,
    choose_files,
    looks_like_weights,
    path_of,
    side_names,
)
from sae_geometry.sources.local import bundle_files
from sae_geometry.sources.wandb import client
from sae_geometry.sources.wandb.client import Artifact, credentials, folder_of

RECORD_NAME = "wandb_artifact.json"


def bundle_artifact(address: Address, context: Context) -> Bundle:
    """Return the checkpoint at `#file`, or the only checkpoint, in a W&B artifact "entity/project/name:VERSION"."""
    known = _cached(address.place, by_alias=context.offline)
    if known is not None and _whole(known, address, context):
        artifact = known
    elif context.offline:
        raise SourceError(f"{address} is not in the cache {folder_of(address.place)}; leave out --offline")
    else:
        artifact = _fetch(client.artifact(address.place), address, context)
    folder, chosen = folder_of(artifact.path), choose(artifact.files, address.place, address.path)
    spelled = f"wandb:{artifact.path}#{path_of(chosen)}".removesuffix("#")
    if spelled.partition("#")[0] != f"wandb:{address.place}":
        context.say(f"wandb:{address.place} is wandb:{artifact.path}")
    bundle = bundle_files(tuple(folder / safe_path(n) for n in chosen), spelled, f"{artifact.path}/{chosen[0]}")
    return replace(
        bundle,
        name=artifact.path.rpartition("/")[2].replace(":", " "),
        config={**artifact.metadata, **bundle.config},
        metadata={**bundle.metadata, "artifact": artifact.path, "artifact_type": artifact.kind},
    )


def _fetch(artifact: Artifact, address: Address, context: Context) -> Artifact:
    """Download the selected weights and their side files to the cache; return the artifact with its files."""
    remote = {f.name: f for f in client.artifact_files(artifact) if f.name.isprintable()}
    folder = folder_of(artifact.path)
    record = folder / RECORD_NAME
    known = _read(record)
    chosen = choose(tuple(remote), address.place, address.path)
    sums = fetch_all(remote, chosen, folder, {} if known is None else known.sums, context)
    fetched = replace(artifact, files=tuple(sorted(remote)), sums=sums)
    with locked(record):
        write_sealed(record, vars(fetched))
    return fetched


def fetch_all(
    remote: Mapping[str, RemoteFile], weights: Sequence[str], folder: Path, known: Mapping[str, str], context: Context
) -> dict[str, str]:
    """Download weights and their side files to the cache, check that the weights open, and return all checksums."""
    sums = {name: digest for name, digest in known.items() if name in remote}
    for name in (*weights, *sides_of(weights, remote)):
        context.say(f"fetching {name} from {origin_of(remote[name].url)}")
        sums[name] = fetch_file(
            remote[name], folder / safe_path(name), recorded=sums.get(name), again=context.again == "all",
            credentials=credentials(),
            check=open_tensors if name in weights and looks_like_weights(name) else None,
            progress=context.progress,
        )  # fmt: skip
    return sums


def sides_of(weights: Sequence[str], names: Container[str]) -> list[str]:
    """Return those side files of the weights that are in `names`."""
    return list(dict.fromkeys(side for name in weights for side in side_names(name) if side in names))


def choose(names: Sequence[str], place: str, file: str | None) -> tuple[str, ...]:
    """Return the names of the weights in a run or artifact: those at `file`, or else the only weights."""
    chosen = choose_files(names, file, f"wandb:{place}" + (f"#{file}" if file else ""))
    if not chosen:
        near = ", ".join(checkpoints_in_order(names)[-3:] or [n for n in names if looks_like_weights(n)][:3])
        raise RefusedError(f"wandb:{place} has no file {file!r}{f'; it has {near}' if near else ''}", 404)
    return chosen


def _cached(place: str, *, by_alias: bool) -> Artifact | None:
    """Return an artifact from the cache, or None; `by_alias` also finds versions by aliases, which may be outdated."""
    stem, _, alias = place.rpartition(":")
    folder = folder_of(place)
    versions = folder.parent.glob(f"{folder.name.rpartition('@')[0]}@v*") if by_alias else [folder]
    found = [a for p in versions if (a := _read(p / RECORD_NAME)) is not None]
    found = [a for a in found if a.path.rpartition(":")[0] == stem and alias in (a.path.rpartition(":")[2], *a.aliases)]
    return max(found, key=lambda a: int(a.path.rpartition(":v")[2]), default=None)


def _read(path: Path) -> Artifact | None:
    said = read_sealed(path) or {}
    try:
        found = Artifact(
            str(said["path"]), str(said["kind"]), tuple(map(str, said["aliases"])), dict(said["metadata"]),
            tuple(map(str, said["files"])), {name: str(value) for name, value in said["sums"].items()},
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if re.fullmatch(r"\d{1,9}", found.path.rpartition(":v")[2]) else None


def _whole(artifact: Artifact, address: Address, context: Context) -> bool:
    """Return whether the selected weights and their side files are complete in the cache."""
    chosen = choose(artifact.files, artifact.path, address.path)
    names = (*chosen, *sides_of(chosen, artifact.sums))
    return in_cache(folder_of(artifact.path), names, artifact.sums, context, f"wandb:{artifact.path}")
