"""The three losses: local, end to end, and end to end with reconstruction downstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from analyses.demo.train.activations import FIRST
from analyses.demo.train.autoencoder import Autoencoder


class LaterBlocks(Protocol):
    """The part of the model that follows the dictionary."""

    def __call__(self, residual: Tensor) -> Sequence[Tensor]:
        """Return the input of each later block, followed by the normed output."""

    def logits(self, normed: Tensor) -> Tensor:
        """Return the logits of a normed output."""


Loss = tuple[Tensor, dict[str, Tensor]]


def local_loss(sae: Autoencoder, x: Float[Tensor, "tokens d"], *, l1: float) -> Loss:
    """Return mean squared error per dimension + `l1` · summed codes, and its parts.

    Args:
        sae: the autoencoder.
        x: activations, scaled to a mean norm of √d.
        l1: coefficient of the summed codes.
    """
    reconstruction, codes = sae(x)
    error = (reconstruction - x).square().mean()
    sparsity = codes.sum(-1).mean()
    return error + l1 * sparsity, {"mse": error, "l1": sparsity, "l0": _l0(codes)}


def end_to_end_loss(
    sae: Autoencoder,
    here: Float[Tensor, "batch length d"],
    later: Float[Tensor, "batch length k d"],
    positions: Sequence[int],
    tail: LaterBlocks,
    *,
    scale: float,
    l1: float,
    downstream: float,
) -> Loss:
    """Return KL(model, model with the autoencoder) + `l1` · summed codes + `downstream` · downstream error.

    Positions before `FIRST` keep their own activations. The downstream error is the squared error before each later
    block as a share of the mean square there, averaged over blocks. With it, this is the paper's e2e+ds objective;
    with `downstream` = 0 it is the e2e objective (Braun et al. 2024, section 2).

    Args:
        sae: the autoencoder.
        here: unscaled activations.
        later: activations before each later block, followed by the normed output.
        positions: positions at which the output distributions are compared.
        tail: the model's later blocks.
        scale: factor that brings activations to a mean norm of √d.
        l1, downstream: coefficients.
    """
    x = here[:, FIRST:] * scale
    reconstruction, codes = sae(x)
    streams = tail(splice(here, reconstruction / scale))
    at = list(positions)
    wanted = tail.logits(later[:, at, -1]).log_softmax(-1)
    got = tail.logits(streams[-1][:, at]).log_softmax(-1)
    kl = functional.kl_div(got, wanted, log_target=True, reduction="none").sum(-1).mean()
    sparsity = codes.sum(-1).mean()
    loss = kl + l1 * sparsity
    parts = {"kl": kl, "l1": sparsity, "l0": _l0(codes), "mse": (reconstruction - x).square().mean()}
    if downstream:
        parts["downstream"] = _downstream(streams, later)
        loss = loss + downstream * parts["downstream"]
    return loss, parts


def splice(
    here: Float[Tensor, "batch length d"], rest: Float[Tensor, "batch rest d"]
) -> Float[Tensor, "batch length d"]:
    """Return `here` with all positions from `FIRST` on replaced by `rest`."""
    return torch.cat([here[:, :FIRST], rest], dim=1)


def _downstream(streams: Sequence[Tensor], later: Float[Tensor, "batch length k d"]) -> Tensor:
    shares = []
    for block, stream in enumerate(streams[:-1]):
        wanted = later[:, FIRST:, block]
        shares.append((stream[:, FIRST:] - wanted).square().mean() / wanted.square().mean())
    return torch.stack(shares).mean()


def _l0(codes: Tensor) -> Tensor:
    return (codes > 0).sum(-1).float().mean()
