"""Tests of partners across runs: the table must agree with comparing two runs."""

from __future__ import annotations

import numpy as np
import oracles
import pandas as pd
import pytest

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.cross_run import partners_across


@pytest.fixture
def three(rng):
    base = rng.standard_normal((40, 10))
    decoders = [base + 0.3 * rng.standard_normal((40, 10)), base[:25] + 0.3 * rng.standard_normal((25, 10)),
                rng.standard_normal((30, 10))]  # fmt: skip
    return [
        Dictionary.from_decoder(w, latent_axis=0, name=n, model="m", hook_point="h").select(
            np.arange(len(w))[::-1].copy()
        )
        for w, n in zip(decoders, "abc", strict=True)
    ]


def test_partners_are_those_of_compare(three):
    across = partners_across(three)
    for r, s in [(0, 1), (1, 0), (0, 2), (2, 1)]:
        found, c = across.partners[r, s], sg.compare(three[r], three[s])
        np.testing.assert_array_equal(found.max_cosine, c.a_to_b.cosine)
        np.testing.assert_array_equal(found.partner_id, c.a_to_b.partner)
        np.testing.assert_array_equal(found.mutual, c.a_to_b.mutual)
        np.testing.assert_array_equal(found.one_to_one_partner_id, c.one_to_one().a_to_b.partner)
        np.testing.assert_array_equal(found.one_to_one_cosine, c.one_to_one().a_to_b.cosine)
    assert set(across.matchings.values()) == {"optimal"}
    pair = across.summary()[0]
    assert pair["mmcs_a_to_b"] == pytest.approx(sg.compare(three[0], three[1]).a_to_b.mmcs)
    assert pair["one_to_one_pairs"] == 25


def test_the_table_names_the_closest_run(three):
    table = partners_across(three).to_pandas()
    assert len(table) == 95
    cosines = {
        n: oracles.dense_cosines(three[0].directions.numpy(), d.directions.numpy())
        for n, d in zip("abc", three, strict=True)
    }
    rows = table.iloc[:40]
    best = np.maximum(cosines["b"].max(axis=1), cosines["c"].max(axis=1))
    np.testing.assert_allclose(rows["max_cosine"], best, atol=1e-12)
    for i, row in rows.iterrows():
        where = "b" if cosines["b"][i].max() >= cosines["c"][i].max() else "c"
        assert row["partner_run"] == where
        assert row["partner_id"] == row[f"partner_id:{where}"]
        assert row["mutual"] == row[f"mutual:{where}"]
        assert row["max_cosine"] == row[f"max_cosine:{where}"]
    own = table.iloc[:40][[f"{c}:a" for c in ("max_cosine", "partner_id", "mutual", "one_to_one_partner_id")]]
    assert own.isna().all().all()
    assert table.iloc[40:]["partner_id:a"].notna().all()
    assert isinstance(table["one_to_one_partner_id"].dtype, pd.Int64Dtype)
    # 15 of the 40 latents cannot have a partner among 25.
    assert rows["one_to_one_partner_id:b"].isna().sum() == 15


def test_sweeps_at_hand_are_used_and_change_nothing(three):
    from sae_geometry.embedding.neighbors import joint_neighbors

    _, swept = joint_neighbors([d.directions for d in three], 6)
    pd.testing.assert_frame_equal(partners_across(three, swept).to_pandas(), partners_across(three).to_pandas())


def test_more_runs_than_letters(rng):
    many = [Dictionary.from_decoder(rng.standard_normal((3, 4)), latent_axis=0, name=f"r{i}") for i in range(28)]
    table = partners_across(many).to_pandas()
    assert len(table) == 84
    assert (table["partner_run"] != np.repeat([f"r{i}" for i in range(28)], 3)).all()
