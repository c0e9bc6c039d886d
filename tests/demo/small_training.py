"""A random model of two blocks, and runs small enough to train in a test."""

from __future__ import annotations

from dataclasses import replace

import torch

from analyses.demo.train.activations import Cache
from analyses.demo.train.plan import RUNS, Run

D, LENGTH, N, VOCABULARY = 12, 20, 40, 31


class SmallTail(torch.nn.Module):
    """Two random blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(9)
        self.blocks = [torch.randn(D, D, generator=g) / D**0.5 for _ in range(2)]
        self.head = torch.randn(D, VOCABULARY, generator=g)

    def forward(self, residual: torch.Tensor) -> list[torch.Tensor]:
        streams = []
        for block in self.blocks:
            mixed = residual.cumsum(1) / torch.arange(1, residual.shape[1] + 1)[:, None]
            residual = residual + torch.tanh(mixed @ block)
            streams.append(residual)
        return streams

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        return normed @ self.head


def small(objective: str) -> Run:
    """Return the first planned run of an objective with 24 latents and 14 steps."""
    first = next(r for r in RUNS if r.objective == objective)
    return replace(first, n_latents=24, n_steps=14)


def small_data(tail: SmallTail) -> Cache:
    """Return random activations and the output of `tail` for them."""
    here = torch.randn(N, LENGTH, D, generator=torch.Generator().manual_seed(3)).half()
    return Cache(here.numpy(), torch.stack(tail(here.float()), dim=2).half().numpy())
