"""Measure a run: sparsity, alive latents, losses relative to the model's own, firing frequencies and labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from analyses.demo.train.activations import FIRST, Cache
from analyses.demo.train.autoencoder import Autoencoder
from analyses.demo.train.files import write_text, write_whole
from analyses.demo.train.objectives import LaterBlocks, splice

BATCH = 32  # sequences
LABELS = 8  # tokens per latent


def measure(
    sae: Autoencoder, held_out: Cache, tokens: Int[Tensor, "n length"], tail: LaterBlocks, scale: float
) -> dict[str, float]:
    """Measure an autoencoder on held-out text, from position `FIRST` of each sequence on.

    The result has the L0, the explained variance (1 − squared error / squared distance to the mean), and the
    next-token cross-entropy in nats of the model itself (`ce_model`), with the autoencoder inserted (`ce`) and with
    zeros inserted (`ce_zero_ablation`), and `loss_recovered` = (ce_zero_ablation − ce) / (ce_zero_ablation − ce_model).
    """
    sums = dict.fromkeys(("l0", "error", "ce_model", "ce", "ce_zero_ablation", "kl"), 0.0)
    n = 0
    for at in range(0, len(tokens), BATCH):
        here, later = held_out.rows(slice(at, at + BATCH))
        for name, value in _sums(sae, here, later, tokens[at : at + BATCH], tail, scale).items():
            sums[name] += value
        n += here[:, FIRST:, 0].numel()
    x = torch.from_numpy(held_out.here[:, FIRST:].reshape(-1, held_out.here.shape[-1]).astype(np.float64)) * scale
    predicted = n - len(tokens)  # The last position has no next token.
    found = {name: sums[name] / predicted for name in ("ce_model", "ce", "ce_zero_ablation", "kl")}
    return found | {
        "l0": sums["l0"] / n,
        "mse": sums["error"] / x.numel(),
        "explained_variance": 1 - sums["error"] / float((x - x.mean(0)).square().sum()),
        "loss_recovered": (found["ce_zero_ablation"] - found["ce"]) / (found["ce_zero_ablation"] - found["ce_model"]),
        "held_out_tokens": float(n),
    }


@torch.no_grad()
def _sums(
    sae: Autoencoder, here: Tensor, later: Tensor, tokens: Tensor, tail: LaterBlocks, scale: float
) -> Mapping[str, float]:
    x = here[:, FIRST:] * scale
    reconstruction, codes = sae(x)
    following = tokens[:, FIRST + 1 :].flatten()
    own = tail.logits(later[:, FIRST:-1, -1])

    def output(rest: Tensor) -> Tensor:
        return tail.logits(tail(splice(here, rest))[-1][:, FIRST:-1])

    def loss(logits: Tensor) -> float:
        return float(functional.cross_entropy(logits.flatten(0, 1), following, reduction="sum"))

    ours = output(reconstruction / scale)
    kl = functional.kl_div(ours.log_softmax(-1), own.log_softmax(-1), log_target=True, reduction="sum")
    return {
        "l0": float((codes > 0).sum()),
        "error": float((reconstruction - x).double().square().sum()),
        "ce_model": loss(own),
        "ce": loss(ours),
        "ce_zero_ablation": loss(output(torch.zeros_like(x))),
        "kl": float(kl),
    }


@torch.no_grad()
def firing(
    sae: Autoencoder, text: Cache, tokens: Int[Tensor, "n length"], scale: float
) -> tuple[Float[Tensor, " n_latents"], Int[Tensor, "n_latents LABELS"], int]:
    """Return the firing frequency of each latent, the tokens on which it fires most, and the number of tokens.

    A latent that fires on fewer than `LABELS` tokens has −1 in the remaining places.
    """
    n_latents = len(sae.b_enc)
    fired = torch.zeros(n_latents, dtype=torch.int64)
    height = torch.zeros(n_latents, LABELS)
    label = torch.full((n_latents, LABELS), -1, dtype=torch.int64)
    n = 0
    for codes, ids in _codes(sae, text, tokens, scale):
        fired += (codes > 0).sum(0)
        n += len(codes)
        top, at = codes.T.topk(min(LABELS, len(codes)), dim=1)
        height, order = torch.cat([height, top], 1).topk(LABELS, dim=1)
        label = torch.cat([label, torch.where(top > 0, ids[at], -1)], 1).gather(1, order)
    return fired / n, label, n


def _codes(sae: Autoencoder, text: Cache, tokens: Tensor, scale: float) -> Iterator[tuple[Tensor, Tensor]]:
    for at in range(0, len(tokens), BATCH):
        here = torch.from_numpy(text.here[at : at + BATCH, FIRST:].astype(np.float32))
        yield sae(here.flatten(0, 1) * scale)[1], tokens[at : at + BATCH, FIRST:].flatten()


def write(
    folder: Path, found: Mapping[str, float], frequency: Tensor, label: Tensor, name: Callable[[int], str]
) -> None:
    """Write `measures.json`, `frequency.npy`, and `labels.json`, which has each latent's labels as text."""
    write_text(folder / "measures.json", json.dumps(dict(found), indent=2) + "\n")
    words = [[name(int(t)) for t in row if t >= 0] for row in label]
    write_text(folder / "labels.json", json.dumps(words, ensure_ascii=False) + "\n")

    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, frequency.numpy().astype(np.float32))

    write_whole(folder / "frequency.npy", save)
