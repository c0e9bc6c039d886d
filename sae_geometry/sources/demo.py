"""Demo dictionaries that the package contains; `data/demo/CARD.md` describes their training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.safetensors import open_safetensors
from sae_geometry.sources.local import labels_next_to
from sae_geometry.sources.wandb.run_record import Kind, RunInfo

DEMO_FOLDER = Path(__file__).parent.parent / "data" / "demo"

_OBJECTIVES = {
    "local": "trained to reconstruct activations",
    "e2e": "trained end to end",
    "e2e+ds": "trained end to end and to reconstruct later blocks",
}
_METRICS = (
    "l0", "ce", "ce_model", "ce_zero_ablation", "ce_increase", "loss_recovered", "explained_variance", "alive_share",
    "activation_scale", "l1_coefficient", "downstream_coefficient",
)  # fmt: skip
_COUNTS = ("seed", "tokens", "held_out_tokens")


@dataclass(frozen=True)
class Demo:
    """A demo dictionary: a sparse autoencoder of SmolLM2-135M before block 24."""

    name: str
    address: str
    n_latents: int
    d_in: int
    kind: Kind
    seed: int
    description: str


@cache
def demos() -> tuple[Demo, ...]:
    """Return the demo dictionaries, sorted by name.

    Example:
        >>> import sae_geometry as sg
        >>> [d.address for d in sg.demos()][:2]
        ['demo:e2e-ds-seed0', 'demo:e2e-ds-seed1']
    """
    return tuple(_demo(path) for path in sorted(DEMO_FOLDER.glob("*.safetensors")))


def bundle_demo(name: str) -> Bundle:
    """Return the checkpoint of the demo dictionary with this name."""
    path = DEMO_FOLDER / f"{name}.safetensors"
    if name not in {d.name for d in demos()}:
        raise SourceError(f"there is no demo {name!r}; the demos are {', '.join(d.name for d in demos())}")
    said = open_safetensors(path).metadata
    measured = {k: float(said[k]) for k in _METRICS} | {k: int(float(said[k])) for k in _COUNTS}
    return Bundle(
        (path,),
        address=f"demo:{name}",
        name=name,
        where=f"demo/{name}",
        config={"hook_point": said["hook_point"], "model_name": said["model"]},
        labels=labels_next_to(path),
        n_tokens=int(float(said["alive_tokens"])),
        metadata={"kind": said["kind"], **measured},
    )


def demo_checkpoints(name: str) -> Path | None:
    """Return the folder with the training checkpoints of a demo dictionary; None if it has none."""
    folder = DEMO_FOLDER / f"{name}-checkpoints"
    return folder if folder.is_dir() else None


def demo_runs() -> list[RunInfo]:
    """Return a `RunInfo` for each demo dictionary."""
    found = []
    for demo in demos():
        bundle = bundle_demo(demo.name)
        known, hook = bundle.metadata, bundle.config["hook_point"]
        found.append(RunInfo(
            demo.address, demo.name, "finished", demo.kind, hook, int(hook.split(".")[1]), known["l0"],
            known["ce_increase"], known["explained_variance"], round(known["alive_share"] * demo.n_latents), demo.seed,
        ))  # fmt: skip
    return found


def _demo(path: Path) -> Demo:
    said = open_safetensors(path).metadata
    kind: Any = said["kind"]
    notes = [_OBJECTIVES[kind], f"seed {said['seed']}", *(["narrow"] if "narrow" in path.stem else [])]
    if "-init-" in path.stem:
        notes.append(f"from the initial weights of {path.stem.partition('-init-')[2]}")
    size = int(said["n_latents"]), int(said["d_in"])
    return Demo(path.stem, f"demo:{path.stem}", *size, kind, int(said["seed"]), ", ".join(notes))
