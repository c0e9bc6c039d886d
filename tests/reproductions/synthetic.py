"""Tiny stand-ins for the paper's runs on a loopback server: checkpoints in e2e_sae's layout, with W&B's records."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from wandb_server import Loopback, StoredRun

D_IN = 24
N = 90
FILE = "samples_400000.pt"
COEFFICIENTS = {"local": (0.0, 0.0), "e2e": (1.0, 0.0), "e2e+ds": (1.0, 2.5)}


def unit_decoder(seed: int, n: int = N, close: float = 0.0) -> np.ndarray:
    """Return random float64 rows [n, d], with every second one turned towards the row before it by `close`."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, D_IN))
    rows[1::2] = (1 - close) * rows[1::2] + close * rows[::2][: len(rows[1::2])]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def stored_run(
    kind: str, layer: int, decoder: np.ndarray, alive: Sequence[int], *, l0: float = 30.0, ce: float = 0.1
) -> StoredRun:
    """Return a finished run: raw decoder columns of different norms, and the alive latents in its summary."""
    hook = f"blocks.{layer}.hook_resid_pre"
    prefix = hook.replace(".", "-")
    n, d = decoder.shape
    norms = np.linspace(0.2, 3.0, n)[:, None]
    rng = np.random.default_rng(n)
    state = {
        f"{prefix}.decoder.weight": torch.from_numpy((decoder * norms).T.astype(np.float32).copy()),
        f"{prefix}.decoder.bias": torch.zeros(d),
        f"{prefix}.encoder.0.weight": torch.from_numpy(rng.standard_normal((n, d)).astype(np.float32)),
        f"{prefix}.encoder.0.bias": torch.zeros(n),
    }
    out = io.BytesIO()
    torch.save(state, out)
    kl, downstream = COEFFICIENTS[kind]
    loss = {
        "logits_kl": {"coeff": kl} if kl else None,
        "in_to_orig": {"total_coeff": downstream} if downstream else None,
    }
    config = {"tlens_model_name": "gpt2-small", "seed": 0, "loss": loss, "saes": {"sae_positions": [hook]}}
    summary = {
        f"sparsity/alive_dict_elements_indices_final/{hook}": list(alive),
        f"sparsity/alive_dict_elements_final/{hook}": len(alive),
        f"sparsity/eval/L_0/{hook}": l0,
        "performance/eval/difference_ce_loss": -ce,
    }
    return StoredRun(config, summary, {FILE: out.getvalue()}, name=f"{kind} {layer}")


def fill(world: Loopback, runs: Sequence[tuple[str, str, int]]) -> dict[str, np.ndarray]:
    """Store a tiny run for each (id, kind, layer), and return the alive decoder rows by id."""
    decoders = {}
    for at, (run_id, kind, layer) in enumerate(dict.fromkeys(runs)):
        decoder = unit_decoder(at, close={"local": 0.8, "e2e": 0.0, "e2e+ds": 0.6}[kind])
        alive = list(range(0, N, 2 if kind == "e2e" else 1))[: N - at % 5]
        world.runs[run_id] = stored_run(kind, layer, decoder, alive, l0=20.0 + at, ce=0.05 + 0.01 * at)
        decoders[run_id] = decoder[alive]
    return decoders
