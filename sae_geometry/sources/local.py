"""Checkpoints on this machine: a file, or a folder from which the one meant is taken."""

from __future__ import annotations

import re
from pathlib import Path

from sae_geometry.sources.address import Address
from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.configs import config_paths
from sae_geometry.sources.errors import SourceError

_SUFFIXES = (".safetensors", ".pt", ".pth", ".npz", ".bin")
_NOT_WEIGHTS = re.compile(
    r"sparsity|optimizer|scheduler|training_args|scaler|rng_state|activation_store", re.IGNORECASE
)
_SAMPLES = re.compile(r"samples_(\d+)\.pt")
_ONE_SOURCE = re.compile(r"W_(?:dec|enc)_(\d+)\.safetensors")
_GENERIC = re.compile(
    r"sae_weights|sae|ae|final|params|model|cc_weights|latest_ckpt|weights|checkpoints?|samples_\d+|W_(?:dec|enc)_\d+",
    re.IGNORECASE,
)
_MAX_DEPTH = 4
_MAX_LISTED = 8


def bundle_local(address: Address) -> Bundle:
    """The checkpoint at a local address.

    Raises:
        SourceError: nothing there, no weights in the folder, or several and none that is clearly meant.
    """
    path = Path(address.place).expanduser()
    if not path.exists():
        raise SourceError(f"{address.place} does not exist (looked in {path.absolute().parent})")
    weights = _weights_in(path) if path.is_dir() else _with_other_half(path)
    return bundle_files(weights, str(weights[0] if len(weights) == 1 else path))


def bundle_files(weights: tuple[Path, ...], address: str, where: str | None = None) -> Bundle:
    """A bundle of weights files on disk, with the side files that lie beside them."""
    sparsity = weights[0].parent / "sparsity.safetensors"
    return Bundle(
        weights,
        address,
        name=_label(weights[0]),
        where=where or weights[0].absolute().as_posix(),
        configs=config_paths(weights[0]),
        sparsity=sparsity if sparsity.is_file() else None,
    )


def last_checkpoint(names: list[str]) -> str | None:
    """Of names like `samples_400000.pt`, the one with the largest number (not the last in the alphabet)."""
    numbered = [(int(m[1]), n) for n in names if (m := _SAMPLES.fullmatch(n.rpartition("/")[2]))]
    return max(numbered)[1] if numbered else None


def looks_like_weights(name: str) -> bool:
    """Whether a file's name is one under which weights are published."""
    base = name.rpartition("/")[2]
    return base.lower().endswith(_SUFFIXES) and not _NOT_WEIGHTS.search(base)


def _weights_in(folder: Path) -> tuple[Path, ...]:
    here = sorted(p for p in folder.iterdir() if p.is_file())
    last = last_checkpoint([p.name for p in here])
    if last is not None:
        return (folder / last,)
    sources = [p for p in here if _ONE_SOURCE.fullmatch(p.name)]
    if sources:
        return tuple(sorted(sources, key=lambda p: (p.name[:5], int(_ONE_SOURCE.fullmatch(p.name)[1]))))  # type: ignore[index]
    for found in (
        [p for p in here if looks_like_weights(p.name)],
        _deeper(folder),
        [p for p in here if p.suffix == ".npy"],
    ):
        if len(found) == 1:
            return (found[0],)
        if found:
            shown = ", ".join(str(p.relative_to(folder)) for p in found[:_MAX_LISTED])
            more = f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
            raise SourceError(f"{folder} holds {len(found)} weights files; give one of {shown}{more}")
    raise SourceError(f"{folder} holds no weights: looked for {', '.join((*_SUFFIXES, '.npy'))}")


def _deeper(folder: Path) -> list[Path]:
    found = [p for p in folder.rglob("*") if p.is_file() and looks_like_weights(p.name)]
    return sorted(p for p in found if len(p.relative_to(folder).parts) <= _MAX_DEPTH)


def _with_other_half(path: Path) -> tuple[Path, ...]:
    """A cross-layer transcoder keeps W_dec_i and W_enc_i apart: the file named, and the other if it is there."""
    if (match := _ONE_SOURCE.fullmatch(path.name)) is None:
        return (path,)
    halves = [path.parent / f"W_{half}_{match[1]}.safetensors" for half in ("dec", "enc")]
    return tuple(p for p in halves if p.is_file())


def _label(path: Path) -> str:
    """The file's stem, or the nearest folder's name where every file of its kind is called the same."""
    named = [path.absolute().with_suffix(""), *path.absolute().parents]
    return next((p.name for p in named if p.name and not _GENERIC.fullmatch(p.name)), path.stem)
