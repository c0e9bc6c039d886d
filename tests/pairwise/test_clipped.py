"""Tests that cosines beyond 1 by rounding are shown and saved as 1, while decisions use the exact values."""

from __future__ import annotations

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.kernels.sweep import sweep


@pytest.fixture(scope="module")
def twins() -> list[sg.Dictionary]:
    weight = np.random.default_rng(3).standard_normal((40, 30))
    signs = np.where(np.arange(40) % 2, 1, -1)[:, None]
    named = {"a": weight, "b": weight, "c": signs * weight}
    return [sg.Dictionary.from_decoder(w, latent_axis=0, name=n) for n, w in named.items()]


def test_they_are_beyond_one_to_begin_with(twins):
    assert float(sweep(twins[0].directions, twins[1].directions).rows.cosine.max()) > 1


@pytest.mark.parametrize("matching", ["nearest", "mutual", "greedy", "optimal"])
@pytest.mark.parametrize("other", [1, 2])
def test_comparisons(twins, matching, other):
    c = sg.compare(twins[0], twins[other], matching, signed=other == 1, turns=0)
    for m in (c.a_to_b, c.b_to_a):
        assert np.nanmax(np.abs(m.cosine)) <= 1
        assert np.nanmax(m.similarity) <= 1
        assert m.mean_similarity <= 1
        assert m.to_pandas()["cosine"].abs().max() <= 1
    if matching == "nearest":
        assert c.a_to_b.partner.tolist() == list(range(40))
        assert c.a_to_b.significant.all()


def test_match_reports(twins):
    record = sg.match(*twins[:2]).record
    assert max(record["pw_mcc"]["signed"][key] for key in ("value", "upper_bound")) <= 1
    assert max(record["mmcs"]["a_to_b"], record["mmcs"]["b_to_a"]) <= 1
    assert max(record["matchings"]["decoder_signed"]["pairs"]["cosine"]) <= 1


def test_an_encoder_that_is_its_decoder():
    weight = np.random.default_rng(3).standard_normal((40, 30))
    a, b = (sg.Dictionary.from_decoder(weight, latent_axis=0, encoder=weight, name=name) for name in "ab")
    table = sg.agreement(a, b).to_pandas()
    for column in ("decoder_cosine", "encoder_cosine", "encoder_own_cosine", "alignment"):
        assert table[column].abs().max() <= 1, column


def test_embeddings(twins):
    table = sg.umap(twins[:2], n_epochs=2).to_pandas()
    for column in table.columns:
        if "cosine" in column:
            assert table[column].abs().max() <= 1
