"""The training runs with their seeds and coefficients, in the order in which they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Objective = Literal["local", "e2e", "e2e+ds"]


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: name of its folder and of the packed file.
        objective: "local" reconstructs the activations, "e2e" the output distribution, and "e2e+ds" both the output
            distribution and the residual stream before the later blocks.
        seed: number of the run within its objective.
        init: seed of the initial weights; runs with the same seed start from the same weights.
        order: seed of the order of the text and of the positions at which the output is compared.
        n_latents: width.
        n_steps: number of batches, each of 512 tokens, or of four sequences of 64 through the model.
        l1: coefficient of the summed activations.
        downstream: coefficient of the error before the later blocks.
        learning_rate: maximum learning rate.
    """

    name: str
    objective: Objective
    seed: int
    init: int
    order: int
    n_latents: int
    n_steps: int
    l1: float
    downstream: float
    learning_rate: float


def _local(name: str, seed: int, *, init: int, order: int, n_latents: int = 1536) -> Run:
    return Run(name, "local", seed, init, order, n_latents, 3000, LOCAL_L1, 0.0, 5e-4)


def _through_the_model(name: str, objective: Objective, seed: int, *, init: int, l1: float, downstream: float) -> Run:
    return Run(name, objective, seed, init, init, 1536, 2000, l1, downstream, 1e-3)


LOCAL_L1, E2E_L1, DS_L1, DS_DOWNSTREAM = 0.0021, 0.01, 0.022, 5.0

RUNS = (
    _local("local-seed0", 0, init=0, order=0),
    _local("local-seed1", 1, init=1, order=1),
    _local("local-seed2", 2, init=2, order=2),
    _local("local-narrow-seed0", 0, init=5, order=5, n_latents=512),
    _local("local-init-e2e-seed0", 3, init=10, order=3),
    _through_the_model("e2e-seed0", "e2e", 0, init=10, l1=E2E_L1, downstream=0.0),
    _through_the_model("e2e-ds-seed0", "e2e+ds", 0, init=20, l1=DS_L1, downstream=DS_DOWNSTREAM),
    _through_the_model("e2e-seed1", "e2e", 1, init=11, l1=E2E_L1, downstream=0.0),
    _through_the_model("e2e-ds-seed1", "e2e+ds", 1, init=21, l1=DS_L1, downstream=DS_DOWNSTREAM),
)
