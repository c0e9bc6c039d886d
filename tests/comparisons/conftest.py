"""Three runs that share some latents, and their comparison."""

from __future__ import annotations

import numpy as np
import pytest
from seeds_cases import run

import sae_geometry as sg


@pytest.fixture(scope="module")
def three():
    rng = np.random.default_rng(0)
    common = rng.standard_normal((20, 24))
    return [
        run(np.concatenate([common[:k], rng.standard_normal((30 - k, 24))]), f"r{k}", metadata={"kind": "x", "seed": k})
        for k in (20, 15, 10)
    ]


@pytest.fixture(scope="module")
def of_three(three):
    return sg.seeds(three)
