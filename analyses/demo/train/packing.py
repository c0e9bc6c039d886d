"""Pack finished runs as the demo dictionaries that ship with the package."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from analyses.common.errors import AnalysisError
from analyses.demo.train.files import write_torch, write_whole
from analyses.demo.train.model import BLOCK, MODEL
from analyses.demo.train.plan import Run
from analyses.demo.train.training import read_autoencoder, tokens_per_step

DRIFT = {"local-narrow-seed0": (100, 400, 1600), "e2e-ds-seed0": (200, 800)}  # steps of the packed checkpoints
DECODER_ONLY = "local-init-e2e-seed0"  # only used to demonstrate the confound audit
HOOK = f"blocks.{BLOCK}.hook_resid_pre"


def pack(run: Run, runs: Path, out: Path) -> int:
    """Write `NAME.safetensors` into `out`, and checkpoints of the runs in `DRIFT`; return the number of bytes.

    Weights are float16, rounded by `_short` to 8 of 11 significant bits. The metadata has every measurement as text.

    Raises:
        AnalysisError: the run is not finished, or not measured.
    """
    folder = runs / run.name
    if not (folder / "measures.json").exists():
        raise AnalysisError(f"{run.name} is not finished; `python -m analyses.demo.train run {run.name}` resumes it")
    weights, measures = read_autoencoder(folder).state_dict(), json.loads((folder / "measures.json").read_text())
    tensors = {
        "W_dec": _short(weights["W_dec"]), "b_dec": weights["b_dec"], "frequency": _tensor(folder / "frequency.npy"),
    }  # fmt: skip
    shapes = {"W_dec": "[n_latents, d_in], rows not unit norm"}
    if run.name != DECODER_ONLY:
        tensors |= {"W_enc": _short(weights["W_enc"]), "b_enc": weights["b_enc"]}
        shapes |= {"W_enc": "[n_latents, d_in]"}
    said = {
        "name": run.name, "model": MODEL, "hook_point": HOOK, "kind": run.objective, "d_in": tensors["b_dec"].numel(),
        "l1_coefficient": run.l1, "downstream_coefficient": run.downstream, "alive_share": measures.pop("alive"),
        "tokens": run.n_steps * tokens_per_step(run),
        "ce_increase": measures["ce"] - measures["ce_model"], **shapes,
        "frequency": "share of the training text's tokens on which the latent fires",
        **{k: v for k, v in asdict(run).items() if k in ("seed", "init", "n_latents", "n_steps")}, **measures,
    }  # fmt: skip
    metadata = {k: v if isinstance(v, str) else repr(v) for k, v in said.items()}
    path = out / f"{run.name}.safetensors"
    write_whole(path, lambda aside: save_file(tensors, aside, metadata=metadata))
    return path.stat().st_size + sum(_pack_checkpoint(run, folder, step, out) for step in DRIFT.get(run.name, ()))


def _pack_checkpoint(run: Run, folder: Path, step: int, out: Path) -> int:
    """Write the decoder of one checkpoint in the layout of the end-to-end paper's runs; return the number of bytes."""
    weights = torch.load(folder / "checkpoints" / f"step-{step}.pt", weights_only=True)
    path = out / f"{run.name}-checkpoints" / f"samples_{step * tokens_per_step(run)}.pt"
    named = {"decoder.weight": _short(weights["W_dec"].float()).T.contiguous(), "decoder.bias": weights["b_dec"]}
    write_torch(path, {f"{HOOK.replace('.', '-')}.{name}": value for name, value in named.items()})
    return path.stat().st_size


def _short(x: torch.Tensor) -> torch.Tensor:
    """Round to float16 with the mantissa of bfloat16, which compresses to three quarters and keeps the wheel small."""
    return x.bfloat16().half()


def _tensor(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(path))
