"""Small checkpoints with configurations, and the refusal of a comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import sae_geometry as sg

N, D = 24, 6
SAELENS = "sae_weights.safetensors"


def sae(seed: int = 0) -> dict[str, torch.Tensor]:
    w = torch.from_numpy(np.random.default_rng(seed).standard_normal((N, D)).astype(np.float32))
    return {"W_dec": w, "W_enc": w.T.contiguous(), "b_enc": torch.zeros(N), "b_dec": torch.zeros(D)}


def put(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **{k: v.numpy() for k, v in tensors.items()})
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def with_config(folder: Path, config: dict[str, Any], name: str = "cfg.json", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(config) if name.endswith(("yaml", "yml")) else json.dumps(config))
    return put(folder / SAELENS, sae(seed))


def refused(a: Path | str, b: Path | str, what: str = "hook point") -> str:
    with pytest.raises(ValueError, match=f"different {what}") as caught:
        sg.compare(a, b)
    return str(caught.value)
