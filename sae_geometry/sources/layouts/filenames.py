"""Choose the weights among the file names (relative paths with "/") of a folder, repository or run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sae_geometry.io.formatting import few
from sae_geometry.sources.errors import LayoutError, SourceError

CONFIG_NAMES = (
    "cfg.json", "config.json", "hyperparams.json", "final_config.yaml", "config.yaml", "conf.yaml", "config.yml",
    "cfg.yaml", "hparams.yaml", "lm_config.json", "wandb_run.json",
)  # fmt: skip
SPARSITY_NAME = "sparsity.safetensors"

_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".npz", ".bin")
# Training runs save these files to be able to resume; none of the files contains a dictionary.
_NOT_WEIGHTS = re.compile(
    r"sparsity|optim|scheduler|training_args|scaler|rng_state|random_states|activations?_store|dataloader|sampler"
    r"|train(?:er|ing)?_state|^(?:rank_?\d+_)?state\.",
    re.IGNORECASE,
)
_INDEX = re.compile(r"(.+?)(?:\.safetensors|\.bin)?\.index\.json")
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.(?:safetensors|bin|pt)")
_LAYER_FILE = re.compile(r"params_layer_(\d{1,4})\.safetensors")
_DCP = ".metadata"
_SAMPLES = re.compile(r"samples_(\d{1,18})\.pt")
_ONE_SOURCE = re.compile(r"W_(?:dec|enc)_(\d{1,4})\.safetensors")
_GENERIC = re.compile(
    r"sae_weights|sae|ae|final|params|model|cc_weights|latest_ckpt|weights|checkpoints?|samples_\d+|W_(?:dec|enc)_\d+"
    r"|params_layer_\d+|(?:pytorch_)?model(?:-\d{5}-of-\d{5}|\.safetensors\.index|\.bin\.index)",
    re.IGNORECASE,
)
_STEP = re.compile(r"(.*?(?:samples|steps?|tokens|iter(?:ation)?s?|checkpoint|ckpt|ae)[_-])(\d{1,18})", re.IGNORECASE)
_OF_A_CACHE = re.compile(r"snapshots|[0-9a-f]{40}")  # These folders are in every Hugging Face cache.
_MOST_LAYERS = 999
_OWN_MARKS = ("_cfg", "_config", ".cfg", ".config")  # For example, NAME_cfg.json belongs to NAME.pt.
_MAX_DEPTH = 4
_MAX_LISTED = 8


def looks_like_weights(name: str) -> bool:
    """Return whether a file name ends like a weights file and does not name other training state."""
    base = name.rpartition("/")[2]
    return base.lower().endswith(_SUFFIXES) and not _NOT_WEIGHTS.search(base)


def checkpoint_number(name: str) -> int | None:
    """Return the number in a name of the form `samples_400000.pt`; None for other names."""
    match = _SAMPLES.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def checkpoints_in_order(names: Sequence[str]) -> list[str]:
    """Return the names of the form `samples_N.pt`, ordered by number."""
    numbered = sorted((n, name) for name in names if (n := checkpoint_number(name)) is not None)
    return [name for _, name in numbered]


def choose_weights(names: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the weights in a folder by name: the last checkpoint of a run, or else the only weights."""
    here = sorted(n for n in names if "/" not in n)
    numbered = checkpoints_in_order(here)
    if numbered:
        return (numbered[-1],)
    halves = [n for n in here if _ONE_SOURCE.fullmatch(n)] or [n for n in here if _LAYER_FILE.fullmatch(n)]
    if halves:
        return tuple(halves)
    units = _units(names)
    if "" in units:
        return units[""]
    shallow = {label: files for label, files in units.items() if "/" not in label}
    arrays = {n: (n,) for n in here if n.endswith(".npy")}
    for found in (shallow, units, arrays):
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            listed = ", ".join(few(sorted(found), _MAX_LISTED))
            raise LayoutError(f"{place} contains {len(found):,} weights files; give one of {listed}")
    if any(n.endswith(".distcp") for n in names):
        raise SourceError(
            f"{place} holds shards of a torch.distributed.checkpoint without the {_DCP} that describes them: fetch "
            "the whole folder, or convert it where it was written (python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch FOLDER OUT.pt)"
        )
    raise SourceError(f"{place} contains no weights: looked for {', '.join((*_SUFFIXES, '.npy'))}")


def separate_checkpoints(names: Sequence[str]) -> list[str]:
    """Return the paths of the checkpoints in a folder, in numerical order; an empty list if there is only one.

    Of several checkpoints of the same run, only the last is included.
    """
    here = sorted(n for n in names if "/" not in n)
    if checkpoints_in_order(here) or any(_ONE_SOURCE.fullmatch(n) or _LAYER_FILE.fullmatch(n) for n in here):
        return []
    units = [n for n in _units(names) if not n.rpartition("/")[2].startswith("W_enc_")]
    folders = {n.rpartition("/")[0] for n in units}
    last = {n.rpartition("/")[0]: n for n in checkpoints_in_order(units)}
    units = [
        n
        for n in units or [n for n in here if n.endswith(".npy")]
        if (checkpoint_number(n) is None or n in last.values())
        and not (re.search(r"(?:^|/)checkpoints/[^/]+$", n) and re.sub(r"/?checkpoints/[^/]+$", "", n) in folders)
    ]
    return sorted(units, key=_by_number) if len(units) > 1 and "" not in units else []


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    return [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in re.split(r"(\d+)", name)]


def choose_files(names: Sequence[str], path: str | None, place: str) -> tuple[str, ...]:
    """Return the weights files at a path (a file or a folder, or None for all names); an empty tuple if none exist."""
    if path is not None and path in names:
        return companions(path, names)
    prefix = f"{path.rstrip('/')}/" if path else ""
    inside = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
    return tuple(prefix + n for n in choose_weights(inside, place)) if inside or not path else ()


def path_of(files: Sequence[str]) -> str:
    """Return a path for which `choose_files` returns these files: the first file, or their folder."""
    folder, _, base = files[0].rpartition("/")
    return folder if base == _DCP or companions(files[0], files) != tuple(files) else files[0]


def is_of_a_checkpoint(name: str) -> bool:
    """Return whether a file contains weights or locates the weights in other files, judging by its name."""
    base = name.rpartition("/")[2]
    return looks_like_weights(name) or base == _DCP or base.endswith((".distcp", ".index.json"))


def _units(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the files of each checkpoint, by the path of its weights file, index, or folder with .metadata."""
    near = sorted(n for n in names if n.count("/") < _MAX_DEPTH)
    units: dict[str, tuple[str, ...]] = {}
    for name in near:
        folder, _, base = name.rpartition("/")
        if base == _DCP and not _NOT_WEIGHTS.search(folder.rpartition("/")[2]):
            units[folder] = companions(name, near)
        elif _INDEX.fullmatch(base) or looks_like_weights(name):
            files = companions(name, near)
            units[files[0]] = files
    return {label: files for label, files in units.items() if files != (label,) or not _INDEX.fullmatch(label)}


def companions(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return a weights file and its companions in `names`; an index or metadata file comes first.

    Companions are the encoder of a cross-layer transcoder, the other shards of a checkpoint and their index, or the
    shards of a torch.distributed.checkpoint.
    """
    folder, slash, base = name.rpartition("/")
    siblings = sorted(n for n in names if n.rpartition("/")[0] == folder)
    if base == _DCP:
        return (name, *(n for n in siblings if n.endswith(".distcp")))
    if _ONE_SOURCE.fullmatch(base) and base.startswith("W_dec_"):
        half = f"{folder}{slash}{base.replace('W_dec_', 'W_enc_')}"
        return (name, half) if half in siblings else (name,)
    index, shard = _INDEX.fullmatch(base), _SHARD.fullmatch(base)
    if index is None and shard is None:
        return (name,)
    stem = (index or shard)[1]  # type: ignore[index]
    bases = [(n, n.rpartition("/")[2]) for n in siblings]
    indices = [n for n, b in bases if (m := _INDEX.fullmatch(b)) and m[1] == stem]
    total = shard[2] if shard else None
    shards = [n for n, b in bases if (m := _SHARD.fullmatch(b)) and m[1] == stem and total in (None, m[2])]
    return (*([name] if index else indices), *shards) if shards else (name,)


def missing_shards(names: Sequence[str]) -> int:
    """Return the number of shards that are missing in a checkpoint without an index."""
    shards = [m for n in names if (m := _SHARD.fullmatch(n.rpartition("/")[2]))]
    return int(shards[0][2]) - len(shards) if shards and len(shards) == len(names) else 0


def layer_table(name: str) -> str | None:
    """Return the prefix for tensor names in a file of one layer, such as `params_layer_3`; None for other files."""
    base = name.rpartition("/")[2]
    return base.removesuffix(".safetensors") if _LAYER_FILE.fullmatch(base) else None


def source_of(name: str) -> int | None:
    """Return the layer in a name of the form `W_dec_1.safetensors` or `params_layer_1.safetensors`; else None."""
    base = name.rpartition("/")[2]
    match = _LAYER_FILE.fullmatch(base) or _ONE_SOURCE.fullmatch(base)
    return int(match[1]) if match else None


def start_names(weights: str) -> tuple[str, ...]:
    """Return possible names of a run's weights at step 0, given a later name; an empty tuple if that name has no step.

    Examples are `samples_0.pt` for `samples_400000.pt` and `step_0/sae.pt` for `step_1000/sae.pt`. If the name of a
    folder is only a number, the number counts as a step if it is too large for a layer.
    """
    folder, _, base = weights.rpartition("/")
    parent, _, step = folder.rpartition("/")
    found = []
    if (named := _STEP.fullmatch(base.rpartition(".")[0])) is not None and int(named[2]):
        found = [f"{folder}/{named[1]}{zero}.{base.rpartition('.')[2]}" for zero in ("0", "0" * len(named[2]))]
    elif (named := _STEP.fullmatch(step)) is not None and int(named[2]):
        found = [f"{parent}/{named[1]}{zero}/{base}" for zero in ("0", "0" * len(named[2]))]
    elif step.isdecimal() and int(step) > _MOST_LAYERS:
        found = [f"{parent}/0/{base}"]
    elif base == "ae.pt":  # dictionary_learning puts checkpoints in a subfolder.
        found = [f"{folder}/checkpoints/ae_0.pt"]
    return tuple(dict.fromkeys(n.removeprefix("/") if not weights.startswith("/") else n for n in found))


def side_names(weights: str) -> tuple[str, ...]:
    """Return possible names of the configuration and sparsity files of a weights file; specific names come first."""
    unit = weights.removesuffix(f"/{_DCP}")  # The side files of a DCP checkpoint are named after its folder.
    folder, _, base = unit.rpartition("/")
    stem = base.rpartition(".")[0] or base
    folders = [folder, folder.rpartition("/")[0]] if folder.rpartition("/")[2] == "checkpoints" else [folder]
    folders = [unit, *folders] if unit != weights else folders
    own = [f"{stem}{mark}{kind}" for mark in _OWN_MARKS for kind in (".json", ".yaml")]
    own += [f"{stem}.yaml", f"{stem}.json"] if not _GENERIC.fullmatch(stem) else []
    names = [(f, n) for f in folders for n in (*own, *CONFIG_NAMES)] + [(folder, SPARSITY_NAME)]
    if base == "sae.safetensors":  # sparsify stores the model's name one folder higher.
        names.append((folder.rpartition("/")[0], "config.json"))
    return tuple(f"{f}/{n}" if f else n for f, n in names)


def label_for(weights: str, place: str) -> str:
    """Return a weights file's stem, or the nearest folder's name if the stem is generic."""
    weights = weights.removesuffix(f"/{_DCP}")
    stem = weights.rpartition("/")[2].rpartition(".")[0] or weights
    folders = [re.sub(r"^(?:models|datasets)--", "", p).rpartition("--")[2] for p in weights.split("/")[:-1] if p]
    named = [stem, *reversed([f for f in folders if not _OF_A_CACHE.fullmatch(f)])]
    return next((n for n in named if not _GENERIC.fullmatch(n)), place.rstrip("/").rpartition("/")[2] or stem)
