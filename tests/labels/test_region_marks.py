from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.labels import Labels
from sae_geometry.labels.regions import region_marks


def test_a_token_marks_the_region_whose_latents_write_towards_it():
    rng = np.random.default_rng(0)
    n = 90
    letters = np.array(["A"] * 30 + ["B"] * 30 + [None] * 30, dtype=object)
    common = [[f"w{i}" for i in rng.integers(0, 20, 4)] for _ in range(n)]
    tokens = [[*words, " because" if letter == "A" else "so"] for words, letter in zip(common, letters, strict=True)]
    d = Dictionary.from_decoder(torch.randn(n, 4), latent_axis=0).labeled(
        Labels.of(pd.DataFrame({"tokens": tokens}), "s")
    )
    marks = region_marks(letters, [d], np.zeros(n, int), np.arange(n))
    assert [m.token for m in marks["A"]] == ["because"]
    assert [m.token for m in marks["B"]] == ["so"]
    (mark,) = marks["A"]
    assert (mark.inside, mark.size, mark.outside, mark.others) == (30, 30, 0, 30)
    assert mark.q_value < 1e-10


def test_no_labels_and_one_region_mark_nothing():
    d = Dictionary.from_decoder(torch.randn(5, 4), latent_axis=0)
    letters = np.array(["A"] * 5, dtype=object)
    assert region_marks(letters, [d], np.zeros(5, int), np.arange(5)) == {}
    labeled = d.labeled(Labels.of(pd.DataFrame({"tokens": [["x"]] * 5}), "s"))
    assert region_marks(letters, [labeled], np.zeros(5, int), np.arange(5)) == {}
