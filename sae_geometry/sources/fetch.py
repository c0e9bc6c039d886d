"""Bringing a checkpoint here without reading it, and saying where it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.sources.bundle import Context, Echo, Progress
from sae_geometry.sources.errors import AddressError, SourceError
from sae_geometry.sources.layouts.filenames import checkpoints_in_order
from sae_geometry.sources.resolve import parse_address, resolve


@dataclass(frozen=True)
class FetchedFile:
    """One file on disk: where it is from, where it is, its size and the sha256 of its bytes."""

    address: str
    path: Path
    n_bytes: int
    sha256: str


def fetch(
    address: str | Path, *, offline: bool = False, echo: Echo | None = None, progress: Progress | None = None
) -> tuple[FetchedFile, ...]:
    """The files of a checkpoint, fetched into the cache if they are not there: weights first, then side files.

    Args:
        address: as `load` takes it.
        offline: touch no network; only say what is there.
        echo: called with what is being done.
        progress: called with a file's name and the share of it fetched.

    Raises:
        SourceError: as `load`, for whatever keeps the files from being here whole.

    Example:
        >>> from sae_geometry.sources import fetch
        >>> fetch("demo:local-seed0")[0].path.name
        'local-seed0.safetensors'
    """
    bundle = resolve(parse_address(address), Context(offline, echo, progress))
    sides = [*bundle.configs, *([bundle.sparsity] if bundle.sparsity else [])]
    return tuple(_described(bundle.address, path) for path in (*bundle.weights, *sides))


def checkpoints(
    run: str | Path, *, offline: bool = False, echo: Echo | None = None, progress: Progress | None = None
) -> tuple[str, ...]:
    """Addresses of every `samples_N.pt` of a run, by number: a folder, or a W&B run, whose files are fetched.

    Raises:
        AddressError: an address that cannot have several checkpoints.
        SourceError: it has none, or they cannot be had.
    """
    address = parse_address(run)
    if address.scheme == "local":
        folder = Path(address.place).expanduser()
        if not folder.is_dir():
            raise AddressError(f"{address.place} is not a folder of checkpoints named samples_N.pt")
    elif address.scheme == "wandb":
        from sae_geometry.sources.wandb.runs import fetch_run

        folder = fetch_run(address.place, Context(offline, echo, progress), every=True).folder
    else:
        raise AddressError(f"{address.typed} has one checkpoint; give a folder or wandb:entity/project/run")
    names = checkpoints_in_order([p.relative_to(folder).as_posix() for p in folder.rglob("samples_*.pt")])
    if not names:
        raise SourceError(f"{address} has no checkpoints named samples_N.pt")
    prefix = f"{folder}/" if address.scheme == "local" else f"wandb:{address.place}#"
    return tuple(f"{prefix}{name}{address.selection}" for name in names)


def _described(address: str, path: Path) -> FetchedFile:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return FetchedFile(address, path, path.stat().st_size, digest)
