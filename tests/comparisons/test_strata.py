from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_geometry.comparisons.strata import SPARSER, strata_lines, strata_of_runs
from sae_geometry.dictionary import Dictionary


def run(name: str, frequency: np.ndarray | None) -> Dictionary:
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    return Dictionary.from_decoder(rows, latent_axis=0, name=name, frequency=frequency)


def test_the_densest_hundredth_is_left_out_and_decades_are_apart():
    frequency = np.full(200, 5e-4)
    frequency[:20] = 5e-6
    frequency[[7, 150]] = 0.9
    similarity = np.full((400, 2), np.nan)
    similarity[:200, 1] = similarity[200:, 0] = 0.5
    dense = [7, 150, 207, 350]
    similarity[dense, [1, 1, 0, 0]] = 1.0
    rows = strata_of_runs([run("a", frequency), run("b", frequency)], similarity, 0.7).set_index(["by", "low"])
    assert rows.loc[("frequency", 0.01), "n"] == 4
    assert rows.loc[("frequency", 0.01), "above"] == 1.0
    assert rows.loc[("frequency", 0.0), "n"] == 38
    sparser = rows.loc[(SPARSER, 0.0)]
    assert (sparser["n"], sparser["mean"], sparser["above"], sparser["high"]) == (396, pytest.approx(0.5), 0.0, 5e-4)
    lines = strata_lines(rows.reset_index())
    assert any(line.startswith(SPARSER) for line in lines)


def test_without_frequencies_there_are_no_strata():
    assert strata_of_runs([run("a", None)], np.full((200, 1), np.nan), 0.7).empty
    assert strata_lines(strata_of_runs([run("a", None)], np.full((200, 1), np.nan), 0.7)) == []
