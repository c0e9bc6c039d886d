"""Which of the files in a folder, a repository or a run are the weights meant. Names in, names out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sae_geometry.sources.errors import LayoutError, SourceError

CONFIG_NAMES = (
    "cfg.json", "config.json", "hyperparams.json", "final_config.yaml", "config.yaml", "conf.yaml", "config.yml",
    "cfg.yaml", "wandb_run.json",
)  # fmt: skip
SPARSITY_NAME = "sparsity.safetensors"

_SUFFIXES = (".safetensors", ".pt", ".pth", ".npz", ".bin")
_NOT_WEIGHTS = re.compile(
    r"sparsity|optimizer|scheduler|training_args|scaler|rng_state|activation_store", re.IGNORECASE
)
_SAMPLES = re.compile(r"samples_(\d{1,18})\.pt")
_ONE_SOURCE = re.compile(r"W_(?:dec|enc)_(\d{1,4})\.safetensors")
_GENERIC = re.compile(
    r"sae_weights|sae|ae|final|params|model|cc_weights|latest_ckpt|weights|checkpoints?|samples_\d+|W_(?:dec|enc)_\d+",
    re.IGNORECASE,
)
_MAX_DEPTH = 4
_MAX_LISTED = 8


def looks_like_weights(name: str) -> bool:
    """Whether a file's name is one under which weights are published."""
    base = name.rpartition("/")[2]
    return base.lower().endswith(_SUFFIXES) and not _NOT_WEIGHTS.search(base)


def checkpoint_number(name: str) -> int | None:
    """400000 for `samples_400000.pt`; None for a name of another form."""
    match = _SAMPLES.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def checkpoints_in_order(names: Sequence[str]) -> list[str]:
    """The `samples_N.pt` among names, by number: samples_50000 comes before samples_400000."""
    numbered = sorted((n, name) for name in names if (n := checkpoint_number(name)) is not None)
    return [name for _, name in numbered]


def choose_weights(names: Sequence[str], place: str) -> tuple[str, ...]:
    """The weights among names relative to a folder: the last checkpoint of a run, else the only weights there are.

    Args:
        names: with "/" between folders.
        place: what to call the folder in messages.

    Raises:
        SourceError: there are none.
        LayoutError: several, and none that is clearly meant; the message lists them.
    """
    here = sorted(n for n in names if "/" not in n)
    numbered = checkpoints_in_order(here)
    if numbered:
        return (numbered[-1],)
    halves = [n for n in here if _ONE_SOURCE.fullmatch(n)]
    if halves:
        return tuple(halves)
    deeper = sorted(n for n in names if 0 < n.count("/") < _MAX_DEPTH and looks_like_weights(n))
    for found in ([n for n in here if looks_like_weights(n)], deeper, [n for n in here if n.endswith(".npy")]):
        if len(found) == 1:
            return (found[0],)
        if found:
            shown = ", ".join(found[:_MAX_LISTED])
            more = f" and {len(found) - _MAX_LISTED:,} more" if len(found) > _MAX_LISTED else ""
            raise LayoutError(f"{place} holds {len(found):,} weights files; give one of {shown}{more}")
    raise SourceError(f"{place} holds no weights: looked for {', '.join((*_SUFFIXES, '.npy'))}")


def other_half(name: str) -> str | None:
    """A cross-layer transcoder keeps W_dec_i and W_enc_i apart: the encoder's file for the decoder's, else None."""
    folder, slash, base = name.rpartition("/")
    if not _ONE_SOURCE.fullmatch(base) or not base.startswith("W_dec_"):
        return None
    return f"{folder}{slash}{base.replace('W_dec_', 'W_enc_')}"


def source_of(name: str) -> int | None:
    """1 for `W_dec_1.safetensors`; None for a name of another form."""
    match = _ONE_SOURCE.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def side_names(weights: str) -> tuple[str, ...]:
    """Where the configuration and the sparsity of a weights file may lie, the most telling first."""
    folder, _, base = weights.rpartition("/")
    stem = base.rpartition(".")[0]
    folders = [folder, folder.rpartition("/")[0]] if folder.rpartition("/")[2] == "checkpoints" else [folder]
    own = [f"{stem}.yaml", f"{stem}.json"] if not _GENERIC.fullmatch(stem) else []
    names = [(f, n) for f in folders for n in (*own, *CONFIG_NAMES)] + [(folder, SPARSITY_NAME)]
    return tuple(f"{f}/{n}" if f else n for f, n in names)


def label_for(weights: str, place: str) -> str:
    """The file's stem, or the nearest folder's name where every file of its kind is called the same."""
    stem = weights.rpartition("/")[2].rpartition(".")[0] or weights
    named = [stem, *reversed([p for p in weights.split("/")[:-1] if p])]
    return next((n for n in named if not _GENERIC.fullmatch(n)), place.rstrip("/").rpartition("/")[2] or stem)
