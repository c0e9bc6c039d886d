"""Checkpoints on this machine: a file of weights, or a folder from which the weights are chosen."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sae_geometry.io.formatting import counted
from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.cache import commit_of
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.layouts.filenames import (
    SPARSITY_NAME,
    choose_weights,
    companions,
    label_for,
    missing_shards,
    side_names,
    start_names,
)
from sae_geometry.sources.wandb.run_record import RUN_RECORD_NAME, read_record

_MAX_DEPTH = 4
_MAX_FILES = 100_000
_MAX_FOLDERS = 10_000  # Links between folders can form an unlimited number of paths.


def bundle_local(address: Address) -> Bundle:
    """Return the checkpoint at a local address."""
    path = Path(os.path.expanduser(address.place))
    if not os.path.lexists(path):
        raise SourceError(f"{address.place} does not exist (looked in {path.absolute().parent})")
    if path.is_dir():
        path = _snapshot(path)
        chosen = choose_weights(list(names_below(path)), str(path))
        return bundle_files(tuple(path / n for n in chosen), str(path / chosen[0] if len(chosen) == 1 else path))
    siblings = [child.name for child in path.parent.iterdir() if child.is_file()]
    return bundle_files(tuple(path.parent / n for n in companions(path.name, siblings)), str(path))


def bundle_files(weights: tuple[Path, ...], address: str, where: str | None = None) -> Bundle:
    """Return the checkpoint that consists of these weights files and the side files next to them."""
    for path in weights:
        if path.is_symlink() and not path.exists():
            raise SourceError(f"{path.name} is a link to {path.readlink()}, which does not exist: fetch the file again")
        if path.exists() and not path.is_file():  # Reading a pipe or a device might never end.
            raise SourceError(f"{path} is not a file")
    first = weights[0].absolute()
    sides = [p for name in side_names(first.as_posix()) if _is_there(p := Path(name))]
    wanting = missing_shards([w.name for w in weights])
    record = next((read_record(p) for p in sides if p.name == RUN_RECORD_NAME), None)
    return Bundle(
        weights,
        address,
        name=label_for(first.as_posix(), address),
        where=where or first.as_posix(),
        configs=tuple(p for p in sides if p.name not in (SPARSITY_NAME, RUN_RECORD_NAME)),
        start=next((p for name in start_names(first.as_posix()) if os.path.isfile(p := Path(name))), None),
        notes=(f"the checkpoint lacks {counted(wanting, 'shard')}: only the others were read",) if wanting > 0 else (),
        sparsity=next((p for p in sides if p.name == SPARSITY_NAME), None),
        labels=labels_next_to(first),
        **({} if record is None else record.of_bundle),
    )


def _is_there(side: Path) -> bool:
    """Return whether a side file exists or is a broken link to a configuration, which must be reported."""
    return os.path.isfile(side) or (os.path.islink(side) and not os.path.exists(side) and side.name != SPARSITY_NAME)


def labels_next_to(weights: Path) -> Path | None:
    """Return the path of the label table next to the weights, named after them; None if there is no such file."""
    path = weights.with_suffix(".labels.parquet")
    return path if os.path.isfile(path) else None


def _snapshot(folder: Path) -> Path:
    """Return the folder itself or, in a Hugging Face cache folder (models--org--repo), the main or only commit."""
    snapshots = folder / "snapshots"
    if not re.fullmatch(r"(?:models|datasets)--.+", folder.name) or not snapshots.is_dir():
        return folder
    commits = sorted(p.name for p in snapshots.iterdir() if p.is_dir())
    main = commit_of(folder, "main")
    if main in commits:
        return snapshots / main
    if len(commits) == 1:
        return snapshots / commits[0]
    if not commits:
        raise SourceError(f"{folder} is the cache of a repository, but contains no commit: fetch the repository again")
    raise SourceError(
        f"{folder} has {len(commits)} commits and does not record which is main: give one of its folders, such as "
        f"{snapshots.name}/{commits[0]}"
    )


def names_below(folder: Path, depth: int = 0, visits: Iterator[int] | None = None) -> Iterator[str]:
    """Yield the relative paths of all files in a folder, down to a few levels of subfolders."""
    visits = itertools.count(1) if visits is None else visits
    if next(visits) > _MAX_FOLDERS:
        raise SourceError(
            f"the search for weights stopped at {folder}, after {_MAX_FOLDERS:,} folders and links to folders: give a "
            "folder closer to the weights"
        )
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error
    for child in children[:_MAX_FILES]:
        broken = child.is_symlink() and not child.exists()  # Opening a broken link raises an error.
        if broken or child.is_file():
            yield child.name
        elif child.is_dir() and depth < _MAX_DEPTH and not child.name.startswith("."):
            yield from (f"{child.name}/{name}" for name in names_below(child, depth + 1, visits))
