"""Tests of the inputs of `compare`: awkward dictionaries, refusals, and the types that it takes."""

from __future__ import annotations

import json

import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from pair_cases import make

import sae_geometry as sg
from sae_geometry.comparisons.pair import MATCHINGS
from sae_geometry.dictionary import Dictionary
from sae_geometry.results.store import to_json

# ---- awkward inputs ------------------------------------------------------------------------------------------------


def test_ties_go_to_the_smaller_index_and_duplicates_share():
    e = np.eye(3)
    c = sg.compare(make(e[[0, 0, 1]], "a"), make(e[[1, 0, 0]], "b"))
    assert c.a_to_b.partner.tolist() == [1, 1, 0]
    assert c.b_to_a.partner.tolist() == [2, 0, 0]
    assert c.a_to_b.multiplicity.tolist() == [1, 2, 0]
    greedy = sg.compare(make(e[[0, 0, 1]], "a"), make(e[[1, 0, 0]], "b"), "greedy")
    assert greedy.a_to_b.partner.tolist() == [1, 2, 0]


def test_antiparallel_pairs_match_only_in_absolute_value():
    a, b = make([[1.0, 0], [0, 1]], "a"), make([[-1.0, 0], [0.6, 0.8]], "b")
    signed, absolute = sg.compare(a, b), sg.compare(a, b, signed=False)
    assert signed.a_to_b.partner.tolist() == [1, 1]
    assert absolute.a_to_b.partner.tolist() == [0, 1]
    assert absolute.a_to_b.similarity[0] == 1.0
    assert absolute.a_to_b.cosine[0] == -1.0
    assert "absolute decoder cosine" in repr(absolute)
    assert absolute.summary()["a_to_b"]["similarity"] == "absolute decoder cosine"


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1), (3, 2)])
def test_very_small_sides(rng, matching, n, m):
    a, b = make(rng.standard_normal((n, 4)), "a"), make(rng.standard_normal((m, 4)), "b")
    c = sg.compare(a, b, matching)
    if matching == "nearest":
        assert (c.a_to_b.n_matched, c.b_to_a.n_matched) == (n, m)
    else:
        assert 1 <= c.a_to_b.n_matched <= min(n, m)
    assert json.loads(to_json(c.summary()))["a_to_b"]["n_source"] == n


def test_unmatched_latents_are_minus_one_nan_and_never_above(rng):
    c = sg.compare(make(rng.standard_normal((9, 4)), "a"), make(rng.standard_normal((3, 4)), "b"), "greedy")
    none = c.a_to_b.partner == -1
    assert none.sum() == 6
    assert np.isnan(c.a_to_b.similarity[none]).all()
    assert c.a_to_b.fraction_above(-2.0) == pytest.approx(3 / 9)
    assert not c.a_to_b.mutual[none].any()


def test_original_ids_survive_selection(rng):
    a, b = oracles.related_decoders(rng, 50, 40, 24, shared=30)
    whole, part = make(b, "b"), make(b, "b").select(np.arange(10, 40))
    c = sg.compare(make(a, "a"), part)
    assert set(c.a_to_b.partner) <= set(range(10, 40))
    assert c.b_to_a.source_ids.tolist() == list(range(10, 40))
    assert sg.compare(make(a, "a"), whole).a_to_b.mmcs >= c.a_to_b.mmcs


def test_bare_arrays_mappings_and_addresses_are_taken(rng):
    a, b = oracles.related_decoders(rng, 20, 15, 8, shared=10)
    expected = sg.compare(make(a, "a"), make(b, "b")).a_to_b.mmcs
    assert sg.compare(a, torch.tensor(b)).a_to_b.mmcs == expected
    assert sg.compare({"W_dec": a}, {"W_dec": torch.tensor(b)}).a_to_b.mmcs == expected
    assert sg.compare("demo:local-narrow-seed0", "demo:local-seed0").a.name == "local-narrow-seed0"


# ---- refusals ------------------------------------------------------------------------------------------------------


def test_different_widths_are_refused_whatever_is_allowed(rng):
    a, b = make(rng.standard_normal((5, 4)), "a"), make(rng.standard_normal((5, 6)), "b")
    for allow in (False, True):
        with pytest.raises(ValueError, match="4 dimensions and 'b' has 6"):
            sg.compare(a, b, allow_mismatch=allow)


@pytest.mark.parametrize(("field", "word"), [("hook_point", "hook point"), ("model", "model")])
def test_different_spaces_are_refused_unless_allowed_and_then_said(rng, field, word):
    w = rng.standard_normal((5, 4))
    a = Dictionary.from_decoder(w, latent_axis=0, name="a", **{"hook_point": "h", "model": "m"} | {field: "one"})
    b = Dictionary.from_decoder(w, latent_axis=0, name="b", **{"hook_point": "h", "model": "m"} | {field: "two"})
    with pytest.raises(ValueError, match=f"different {word}.*--allow-mismatch"):
        sg.compare(a, b)
    c = sg.compare(a, b, allow_mismatch=True)
    assert any(word in caveat and "allowed" in caveat for caveat in c.caveats)
    assert word in repr(c)
    assert word in c._repr_html_()
    assert any(word in caveat for caveat in c.summary()["caveats"])


def test_one_model_under_two_names_is_one_model(rng):
    w = rng.standard_normal((5, 4))
    spaces = [{"model": "gpt2-small"}, {"model": "openai-community/GPT2"}]
    a, b = (Dictionary.from_decoder(w, latent_axis=0, name=n, **s) for n, s in zip("ab", spaces, strict=True))
    assert not any("different" in c for c in sg.compare(a, b).caveats)


def test_unknown_spaces_are_reported(rng):
    w = rng.standard_normal((5, 4))
    c = sg.compare(make(w, "a"), Dictionary.from_decoder(w, latent_axis=0, name="b"))
    assert any("hook point of b unknown" in caveat for caveat in c.caveats)


@pytest.mark.usefixtures("unchecked")
def test_unknown_matching_is_refused(toy_pair):
    with pytest.raises(ValueError, match="nearest, mutual, greedy, optimal; got 'hungarian'"):
        sg.compare(*toy_pair, matching="hungarian")


# ---- what is compared ------------------------------------------------------------------------------------------------


def test_data_frames_names_and_bad_rows_are_taken(toy_pair):
    a, b = (d.directions.numpy() for d in toy_pair)
    plain = sg.compare(a, b, names=("left", "right"))
    assert (plain.a.name, plain.b.name) == ("left", "right")
    ids = np.arange(len(a))[::-1] * 10
    framed = sg.compare(pd.DataFrame(a, index=ids), pd.DataFrame(b, index=[f"row {k}" for k in range(len(b))]))
    np.testing.assert_array_equal(framed.a_to_b.similarity, plain.a_to_b.similarity)
    np.testing.assert_array_equal(framed.a_to_b.source_ids, ids)
    np.testing.assert_array_equal(framed.b_to_a.source_ids, np.arange(len(b)))
    broken = pd.DataFrame(a, index=ids).copy()
    broken.iloc[3] = np.nan
    with pytest.raises(ValueError, match="drop_bad=True"):
        sg.compare(broken, b)
    np.testing.assert_array_equal(sg.compare(broken, b, drop_bad=True).a_to_b.source_ids, np.delete(ids, 3))
    with pytest.raises(ValueError, match="dense array of real numbers"):
        sg.compare(pd.DataFrame({"token": ["x", "y"]}), b)


@pytest.mark.parametrize("names", [("one",), ("one", "two", "three")])
def test_names_are_one_per_side(toy_pair, names, unchecked):
    with pytest.raises(ValueError, match=f"two labels, for a and b; got {len(names)}"):
        sg.compare(*toy_pair, names=names)
