"""Download checkpoints without reading them, and return the paths of their files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sae_geometry.sources.bundle import Context, Echo, Progress
from sae_geometry.sources.checksums import checksum
from sae_geometry.sources.demo import demo_checkpoints
from sae_geometry.sources.errors import AddressError, SourceError
from sae_geometry.sources.layouts.filenames import checkpoints_in_order
from sae_geometry.sources.resolve import parse_address, resolve
from sae_geometry.sources.wandb.runs import fetch_run


@dataclass(frozen=True)
class FetchedFile:
    """A downloaded file: its address, path, size in bytes and SHA-256."""

    address: str
    path: Path
    n_bytes: int
    sha256: str


def fetch(
    address: str | Path,
    *,
    force: bool = False,
    offline: bool = False,
    echo: Echo | None = None,
    progress: Progress | None = None,
) -> tuple[FetchedFile, ...]:
    """Download the missing or damaged files of a checkpoint; return all of its files, weights first.

    Args:
        address: any input of `load`.
        force: download all files, including intact cached files.
        offline: list only cached files, and do not use the network.
        echo: called with one line of text per step.
        progress: called with a file's name and its downloaded share.

    Raises:
        SourceError: the address cannot be resolved (see `load`), or a download fails.
        ValueError: both `force` and `offline` are set.

    Example:
        >>> from sae_geometry.sources import fetch
        >>> fetch("demo:local-seed0")[0].path.name
        'local-seed0.safetensors'
    """
    context = Context(offline, echo, progress, "all" if force else "damaged")
    if force and context.offline:
        raise ValueError("force requires the network, which offline forbids; use only one of the two")
    bundle = resolve(parse_address(address), context)
    sides = [*bundle.configs, *([bundle.sparsity] if bundle.sparsity else [])]
    return tuple(FetchedFile(bundle.address, p, p.stat().st_size, checksum(p)) for p in (*bundle.weights, *sides))


def checkpoints(
    run: str | Path, *, offline: bool = False, echo: Echo | None = None, progress: Progress | None = None
) -> tuple[str, ...]:
    """Return the addresses of all `samples_N.pt` in a folder or W&B run, ordered by N; download a run's files.

    For a demo dictionary with training checkpoints, return the checkpoints and then the dictionary itself.

    Raises:
        AddressError: the address cannot have several checkpoints.
        SourceError: there are no checkpoints, or the checkpoints cannot be downloaded.
    """
    address = parse_address(run)
    if address.scheme == "demo" and (states := demo_checkpoints(address.place)):
        return (*checkpoints(states), str(address))
    if address.scheme == "local":
        folder = Path(os.path.expanduser(address.place))
        if not folder.is_dir():
            raise AddressError(f"{address.place} is not a folder of checkpoints named samples_N.pt")
    elif address.scheme == "wandb" and ":" not in address.place:
        _, folder, _ = fetch_run(address.place, Context(offline, echo, progress), every=True)
    else:
        raise AddressError(f"{address.typed} has only one checkpoint; give a folder, or wandb:entity/project/run")
    names = checkpoints_in_order([p.relative_to(folder).as_posix() for p in folder.rglob("samples_*.pt")])
    if not names:
        raise SourceError(f"{address} has no checkpoints named samples_N.pt")
    prefix = f"{folder}/" if address.scheme == "local" else f"wandb:{address.place}#"
    return tuple(f"{prefix}{name}{address.selection}" for name in names)
