from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import sae_geometry as sg
from sae_geometry.comparisons.strata import SPARSER, strata_lines, strata_of_runs
from sae_geometry.dictionary import Dictionary
from sae_geometry.pairwise.pair_record import N_BANDS


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
    sums = np.zeros((2, N_BANDS, 2))
    sums[:, 5] = [1.6, 1]  # sums over a run's two densest latents
    runs = [run("a", frequency), run("b", frequency)]
    rows = strata_of_runs(runs, similarity, 0.7, sums).set_index(["by", "low"])
    assert rows.loc[("frequency", 0.1), "n"] == 4
    assert rows.loc[("frequency", 0.1), ["above", "mmcs", "significant"]].tolist() == [1.0, 0.8, 0.5]
    assert rows.loc[("frequency", 0.0), "n"] == 38
    sparser = rows.loc[(SPARSER, 0.0)]
    assert (sparser["n"], sparser["mean"], sparser["above"], sparser["high"]) == (396, pytest.approx(0.5), 0.0, 5e-4)
    lines = strata_lines(rows.reset_index(), {"above": "shared > 0.7", "mmcs": "MMCS"})
    assert lines[0].split("  ")[-2:] == ["shared > 0.7", "MMCS"]
    assert any(line.startswith(SPARSER) for line in lines)
    assert [line.split()[-2:] for line in lines if line.startswith("0.1 ")] == [["100.0%", "0.800"]]


def test_compare_and_seeds_give_their_headline_numbers_by_frequency(demo):
    a, b = demo["local-seed0"], demo["local-seed1"]
    c, s = sg.compare(a, b, turns=0, threshold=0.8), sg.seeds([a, b], threshold=0.8)
    paired, frequency = c.one_to_one().a_to_b, a.frequency.numpy()
    rows = pd.DataFrame(c.summary()["strata"]).query("direction == 'a_to_b'").set_index(["by", "low"])
    often = (frequency > 1e-3) & (frequency <= 1e-2)
    row = rows.loc[("frequency", 1e-3)]
    assert row["shared"] == (paired.similarity[often] > 0.8).mean()
    assert row["above"] == (c.a_to_b.similarity[often] > 0.8).mean()
    sparse = np.argsort(frequency, kind="stable")[:-16]  # 1% of 1,536 latents, rounded up
    assert rows.loc[(SPARSER, 0.0), "shared"] == (paired.similarity[sparse] > 0.8).mean()
    bands = pd.DataFrame(s.summary()["strata"]).set_index(["by", "low"]).loc[("frequency", 1e-3)]
    both = [(c.a_to_b, often), (c.b_to_a, (b.frequency.numpy() > 1e-3) & (b.frequency.numpy() <= 1e-2))]
    assert bands["mmcs"] == pytest.approx(np.concatenate([m.similarity[at] for m, at in both]).mean())
    assert bands["significant"] == pytest.approx(np.concatenate([m.significant[at] for m, at in both]).mean())
    assert "one to one > 0.8" in c.details()
    assert "shared one to one > 0.8  PW-MCC  MMCS   significant" in s.details()
    # All latents fire on more than 1e-4 of tokens, so the line would repeat the headline.
    assert "firing on" not in repr(c)
    assert "firing on > 0.0001 of tokens" in repr(sg.compare(demo["e2e-seed0"], a, turns=0))


def test_without_frequencies_there_are_no_strata():
    unknown = strata_of_runs([run("a", None)], np.full((200, 1), np.nan), 0.7, np.full((1, N_BANDS, 2), np.nan))
    assert unknown.empty
    assert strata_lines(unknown, {"mean": "mean"}) == []
