"""Checkpoints on this machine: a file, or a folder from which the one meant is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.layouts.filenames import SPARSITY_NAME, choose_weights, label_for, other_half, side_names
from sae_geometry.sources.wandb.run_record import RUN_RECORD_NAME, read_record

_MAX_DEPTH = 4
_MAX_FILES = 100_000


def bundle_local(address: Address) -> Bundle:
    """The checkpoint at a local address.

    Raises:
        SourceError: nothing there, no weights in the folder, or several and none that is clearly meant.
    """
    path = Path(address.place).expanduser()
    if not path.exists():
        raise SourceError(f"{address.place} does not exist (looked in {path.absolute().parent})")
    if path.is_dir():
        chosen = choose_weights(list(_names(path)), str(path))
        return bundle_files(tuple(path / n for n in chosen), str(path / chosen[0] if len(chosen) == 1 else path))
    half = other_half(path.name)
    halves = (path, path.parent / half) if half and (path.parent / half).is_file() else (path,)
    return bundle_files(halves, str(path))


def bundle_files(weights: tuple[Path, ...], address: str, where: str | None = None) -> Bundle:
    """A bundle of weights files on disk, with the side files that lie beside them.

    Args:
        weights: the files.
        address: recorded in every result.
        where: the path after the repository's name, where there is one.
    """
    first = weights[0].absolute()
    sides = [Path(p) for name in side_names(first.as_posix()) if (p := Path(name)).is_file()]
    record = next((read_record(p) for p in sides if p.name == RUN_RECORD_NAME), None)
    return Bundle(
        weights,
        address,
        name=label_for(first.as_posix(), address),
        where=where or first.as_posix(),
        configs=tuple(p for p in sides if p.name not in (SPARSITY_NAME, RUN_RECORD_NAME)),
        sparsity=next((p for p in sides if p.name == SPARSITY_NAME), None),
        config={} if record is None else record.config,
        alive_ids={} if record is None else record.alive_ids,
        alive_source="unknown" if record is None else record.alive_source,
        metadata={} if record is None else record.metadata,
    )


def _names(folder: Path, depth: int = 0) -> Iterator[str]:
    """Files below a folder, a few levels deep, as names relative to it."""
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error.strerror}") from error
    for child in children[:_MAX_FILES]:
        if child.is_file():
            yield child.name
        elif child.is_dir() and depth < _MAX_DEPTH and not child.name.startswith("."):
            yield from (f"{child.name}/{name}" for name in _names(child, depth + 1))
