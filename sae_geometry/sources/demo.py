"""Demo dictionaries included in the package; `data/demo/CARD.md` describes their training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sae_geometry.sources.bundle import Bundle
from sae_geometry.sources.errors import SourceError
from sae_geometry.sources.files.safetensors import open_safetensors
from sae_geometry.sources.local import labels_beside

DEMO_FOLDER = Path(__file__).parent.parent / "data" / "demo"

# For local training, firing was counted over all of the last pass; for end-to-end training, over the last part, whose
# length the files do not state.
_LOCAL_TOKENS = 102_400
_OBJECTIVES = {"local": "trained to reconstruct activations", "e2e": "trained end to end, under-trained"}


@dataclass(frozen=True)
class Demo:
    """A demo dictionary: a sparse autoencoder of SmolLM2-135M before block 24."""

    name: str
    address: str
    n_latents: int
    d_in: int
    kind: Literal["local", "e2e"]
    seed: int
    description: str


@cache
def demos() -> tuple[Demo, ...]:
    """Return the demo dictionaries, by name.

    Example:
        >>> import sae_geometry as sg
        >>> [d.address for d in sg.demos()][:2]
        ['demo:e2e-seed0', 'demo:e2e-seed1']
    """
    return tuple(_demo(path) for path in sorted(DEMO_FOLDER.glob("*.safetensors")))


def bundle_demo(name: str) -> Bundle:
    """Return the checkpoint of one demo dictionary.

    Raises:
        SourceError: no demo of that name; the message lists all.
    """
    path = DEMO_FOLDER / f"{name}.safetensors"
    if name not in {d.name for d in demos()}:
        raise SourceError(f"there is no demo {name!r}; the demos are {', '.join(d.name for d in demos())}")
    said = open_safetensors(path).metadata
    kind = said["kind"]
    return Bundle(
        (path,),
        address=f"demo:{name}",
        name=name,
        where=f"demo/{name}",
        config={"hook_point": said["hook_point"], "model_name": said["model"]},
        labels=labels_beside(path),
        n_tokens=_LOCAL_TOKENS if kind == "local" else None,
        metadata={
            "kind": kind,
            "seed": int(said["seed"]),
            "activation_scale": float(said["activation_scale"]),
            "l1_coefficient": float(said["l1_coefficient"]),
        },
    )


def _demo(path: Path) -> Demo:
    said = open_safetensors(path).metadata
    size = "narrow, " if "narrow" in path.stem else ""
    kind: Literal["local", "e2e"] = "local" if said["kind"] == "local" else "e2e"
    return Demo(
        path.stem,
        f"demo:{path.stem}",
        int(said["n_latents"]),
        int(said["d_in"]),
        kind,
        int(said["seed"]),
        f"{size}{_OBJECTIVES[kind]}, seed {said['seed']}",
    )
