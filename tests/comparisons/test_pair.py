"""Tests of `compare`: the dense float64 definition, invariances, refusals and output."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import sae_geometry as sg
from sae_geometry.comparisons.pair import MATCHINGS
from sae_geometry.dictionary import Dictionary
from sae_geometry.kernels.reference import exact_cosines
from sae_geometry.results.store import to_json

ONE_TO_ONE = ("mutual", "greedy", "optimal")


def make(w, name="x", **kwargs):
    return Dictionary.from_decoder(np.asarray(w), latent_axis=0, name=name, hook_point="h", model="m", **kwargs)


def dense(c):
    return exact_cosines(c.a.directions, c.b.directions)


# ---- the definition ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("local-narrow-seed0", "e2e-seed0"),
        pytest.param("local-seed0", "local-seed1", marks=pytest.mark.slow),
    ],
)
def test_demo_pair_equals_dense_float64(demo, left, right):
    c = sg.compare(demo[left], demo[right])
    scores = oracles.dense_cosines(demo[left].directions.numpy(), demo[right].directions.numpy())
    for m, s, ids in ((c.a_to_b, scores, c.b.latent_ids), (c.b_to_a, scores.T, c.a.latent_ids)):
        np.testing.assert_allclose(m.similarity, s.max(axis=1), atol=1e-12)
        np.testing.assert_array_equal(m.partner, ids.numpy()[s.argmax(axis=1)])
        np.testing.assert_array_equal(m.multiplicity, np.bincount(s.argmax(axis=1), minlength=s.shape[1]))
        assert m.mmcs == pytest.approx(s.max(axis=1).mean(), abs=1e-12)
        assert m.coverage == pytest.approx(len(set(s.argmax(axis=1))) / s.shape[1])
        for t in (0.3, 0.7, 0.9):
            assert m.fraction_above(t) == pytest.approx((s.max(axis=1) > t).mean())


def test_scores_are_the_exact_inner_products_to_the_last_bit(toy_pair):
    c = sg.compare(*toy_pair)
    np.testing.assert_array_equal(c.a_to_b.similarity, dense(c).max(axis=1))


def test_greedy_is_sequential_greedy_and_optimal_is_scipys_on_the_demo(demo):
    a, b = demo["local-narrow-seed0"], demo["local-seed1"]
    scores = exact_cosines(a.directions, b.directions)
    greedy = sg.compare(a, b, "greedy", turns=0).a_to_b
    np.testing.assert_array_equal(greedy.partner_row, oracles.sequential_greedy(scores))
    optimal = sg.compare(a, b, "optimal", turns=0).a_to_b
    rows, cols = linear_sum_assignment(scores, maximize=True)
    assert optimal.n_matched == len(rows)
    assert optimal.mean_similarity == pytest.approx(scores[rows, cols].mean(), abs=1e-12)


def test_mutual_is_mutual(toy_pair):
    c = sg.compare(*toy_pair, matching="mutual")
    s = dense(c)
    forth, back = s.argmax(axis=1), s.argmax(axis=0)
    expected = np.where(back[forth] == np.arange(len(s)), forth, -1)
    np.testing.assert_array_equal(c.a_to_b.partner_row, expected)
    assert c.a_to_b.mutual.sum() == (expected >= 0).sum()
    nearest = sg.compare(*toy_pair)
    np.testing.assert_array_equal(nearest.a_to_b.mutual, expected >= 0)


@pytest.mark.parametrize("matching", ONE_TO_ONE)
@pytest.mark.parametrize("signed", [True, False])
def test_one_to_one_is_the_same_pairs_from_both_sides(toy_pair, matching, signed):
    c = sg.compare(*toy_pair, matching=matching, signed=signed)
    pairs = {(i, j) for i, j in zip(c.a_to_b.source_ids, c.a_to_b.partner, strict=True) if j >= 0}
    back = {(i, j) for j, i in zip(c.b_to_a.source_ids, c.b_to_a.partner, strict=True) if i >= 0}
    assert pairs == back
    assert c.a_to_b.multiplicity.max() == 1
    assert c.a_to_b.n_matched == c.b_to_a.n_matched == len(pairs)
    assert c.a_to_b.mean_similarity == pytest.approx(c.b_to_a.mean_similarity)
    if matching != "mutual":
        assert len(pairs) == min(c.a.n_latents, c.b.n_latents)


def test_the_matchings_are_ordered(toy_pair):
    total = {m: float(np.nansum(sg.compare(*toy_pair, matching=m).a_to_b.similarity)) for m in MATCHINGS}
    assert total["nearest"] >= total["optimal"] >= total["greedy"]


# ---- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_dictionary_against_itself_is_the_identity(rng, matching):
    a = make(rng.standard_normal((40, 16)))
    c = sg.compare(a, a, matching=matching)
    for m in (c.a_to_b, c.b_to_a):
        np.testing.assert_array_equal(m.partner, m.source_ids)
        np.testing.assert_allclose(m.similarity, 1, atol=1e-6)
        assert m.mutual.all()
        assert m.coverage == 1
    assert c.a.name != c.b.name


@pytest.mark.parametrize("matching", MATCHINGS)
def test_rotating_both_changes_nothing(rng, matching):
    a, b = oracles.related_decoders(rng, 50, 50, 24, shared=40)
    q, _ = np.linalg.qr(rng.standard_normal((24, 24)))
    before = sg.compare(make(a, "a"), make(b, "b"), matching=matching)
    after = sg.compare(make(a @ q, "a"), make(b @ q, "b"), matching=matching)
    np.testing.assert_array_equal(before.a_to_b.partner, after.a_to_b.partner)
    np.testing.assert_allclose(before.a_to_b.similarity, after.a_to_b.similarity, atol=1e-6)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_permuting_rows_permutes_the_answer(rng, matching):
    a, b = oracles.related_decoders(rng, 50, 40, 24, shared=30)
    p, q = rng.permutation(50), rng.permutation(40)
    before = sg.compare(make(a, "a"), make(b, "b"), matching=matching).a_to_b
    after = sg.compare(make(a[p], "a"), make(b[q], "b"), matching=matching).a_to_b
    back = np.where(after.partner >= 0, q[after.partner], -1)
    np.testing.assert_array_equal(back, before.partner[p])
    np.testing.assert_array_equal(after.similarity, before.similarity[p])


def test_rescaling_raw_rows_changes_nothing(rng):
    a, b = oracles.related_decoders(rng, 50, 40, 24, shared=30)
    scale = rng.uniform(0.01, 100, (50, 1))
    before, after = sg.compare(make(a, "a"), make(b, "b")).a_to_b, sg.compare(make(a * scale, "a"), make(b, "b")).a_to_b
    np.testing.assert_array_equal(before.partner, after.partner)
    np.testing.assert_allclose(before.similarity, after.similarity, atol=1e-6)


def test_swapping_the_inputs_swaps_the_directions(toy_pair):
    a, b = toy_pair
    for matching in MATCHINGS:
        one, two = sg.compare(a, b, matching), sg.compare(b, a, matching)
        if matching != "optimal":
            np.testing.assert_array_equal(one.a_to_b.partner, two.b_to_a.partner)
        np.testing.assert_allclose(one.a_to_b.mean_similarity, two.b_to_a.mean_similarity, atol=1e-12)


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
        with pytest.raises(ValueError, match="4 dimensions and 'b' in 6"):
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


def test_unknown_space_is_said(rng):
    w = rng.standard_normal((5, 4))
    c = sg.compare(make(w, "a"), Dictionary.from_decoder(w, latent_axis=0, name="b"))
    assert any("hook point of b unknown" in caveat for caveat in c.caveats)


@pytest.mark.usefixtures("unchecked")
def test_unknown_matching_is_refused(toy_pair):
    with pytest.raises(ValueError, match="nearest, mutual, greedy, optimal; got 'hungarian'"):
        sg.compare(*toy_pair, matching="hungarian")


# ---- what it says --------------------------------------------------------------------------------------------------


def test_to_pandas_has_identity_and_both_directions(toy_pair):
    c = sg.compare(*toy_pair)
    frame = c.to_pandas()
    assert list(frame.columns) == [
        "direction", "run", "latent_id", "partner_run", "partner_id", "cosine", "mutual", "q_value", "significant",
        "margin", "margin_of_partner", "one_to_one_partner_id", "one_to_one_cosine", "one_to_one_matching",
        "one_to_one_margin", "one_to_one_loss_if_forbidden", "alive", "frequency",
    ]  # fmt: skip
    assert frame["direction"].value_counts().to_dict() == {"a_to_b": 60, "b_to_a": 47}
    row = frame[(frame["run"] == "b") & (frame["latent_id"] == 3)].iloc[0]
    assert row["partner_id"] == c.b_to_a.partner[3]
    assert row["cosine"] == c.b_to_a.cosine[3]


def test_repr_names_matching_similarity_chance_and_counts(toy_pair):
    text = repr(sg.compare(*toy_pair, matching="greedy"))
    for part in ("greedy", "nearest", "cosine > 0.7", "by chance", "of 47", "A a", "B b", "A→B", "B→A"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 20
    c = sg.compare(*toy_pair)
    assert "shared one to one" in c._repr_html_()
    assert all(words in c.details() for words in ("double counting", "balance", "95% intervals"))


def test_summary_is_strict_json_and_complete(toy_pair):
    summary = json.loads(to_json(sg.compare(*toy_pair, matching="optimal").summary()))
    assert summary["matching"] == "optimal"
    assert summary["nearest"]["a_to_b"]["matching"] == "nearest"
    assert summary["inputs"]["a"]["fingerprint"] == toy_pair[0].fingerprint
    assert {"screen", "epsilon", "rows_redone", "device"} <= set(summary["sweep"])
    assert summary["a_to_b"]["fraction_of_source_above"].keys() == {"0.5", "0.7", "0.8", "0.9"}


def test_without_turns_a_one_to_one_matching_has_no_chance(toy_pair):
    m = sg.compare(*toy_pair, "optimal", turns=0).a_to_b
    assert np.isnan([m.chance, m.own, m.chance_adjusted]).all()
    assert m.expected.turns == 0
    assert m.q_value.min() < 0.5  # Significance does not need matchings with the turned dictionary.


@pytest.mark.parametrize("matching", ["mutual", "greedy", "optimal"])
def test_the_chance_of_a_one_to_one_matching_is_what_it_gives_on_noise(matching):
    rng = np.random.default_rng(0)
    a, b = make(rng.standard_normal((300, 32)), "a"), make(rng.standard_normal((200, 32)), "b")
    c = sg.compare(a, b, matching)
    by_chance = c.a_to_b.expected
    assert by_chance.turns == 3
    assert by_chance.spread < 0.01
    assert c.a_to_b.mean_similarity == pytest.approx(by_chance.mean_similarity, abs=0.02)
    assert c.a_to_b.n_matched == pytest.approx(by_chance.n_pairs, rel=0.15)
    assert c.a_to_b.chance_adjusted == pytest.approx(0.0, abs=0.03)
    assert c.b_to_a.chance == c.a_to_b.chance
    assert f"{c.a_to_b.chance:.3f}" in repr(c)
    assert c.summary()["a_to_b"]["expected_by_chance"]["turns"] == 3
    assert not c.a_to_b.significant.any()


def test_halves_are_matched_where_both_may_have_families(rng):
    center = rng.standard_normal((8, 64)).repeat(12, axis=0)
    near, far = (
        [make(2 * shared + rng.standard_normal((96, 64)), name) for name in ("a", "b")] for shared in (center, 0)
    )
    m = sg.compare(*near, "greedy").a_to_b
    assert m.chance + 0.02 < m.own < m.mean_similarity
    assert np.isnan(sg.compare(*far, "greedy").a_to_b.own)


def test_an_optimal_matching_with_a_floor_has_its_own_chance():
    rng = np.random.default_rng(0)
    a, b = make(rng.standard_normal((300, 16)), "a"), make(rng.standard_normal((300, 16)), "b")
    m = sg.compare(a, b, "optimal", min_similarity=0.7).a_to_b
    assert m.expected.n_pairs < 300
    assert m.n_matched == pytest.approx(m.expected.n_pairs, abs=40)
    assert m.chance > 0.7


def test_turns_are_a_number(toy_pair):
    with pytest.raises(ValueError, match="0 or more; got -1"):
        sg.compare(*toy_pair, turns=-1)


def test_an_optimal_matching_that_stopped_says_so():
    rng = np.random.default_rng(0)
    c = sg.compare(make(rng.standard_normal((900, 4)), "a"), make(rng.standard_normal((900, 4)), "b"), "optimal",
                   time_budget=0.0)  # fmt: skip
    assert not c.assignment.certificate.certified
    assert "stopped (time_budget)" in repr(c)
    assert "largest total similarity (one-to-one" not in repr(c)
    assert c.summary()["certificate"]["certified"] is False
    assert "double_counting" not in c.summary()
    assert c.rematch("optimal").assignment.certificate.certified


def test_ctrl_c_in_a_matching_nobody_asked_for_stops(toy_pair, monkeypatch):
    from sae_geometry.matching import optimal

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(optimal._Run, "_rounds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sg.compare(*toy_pair)
    asked = sg.compare(*toy_pair, "optimal")
    assert asked.was_interrupted
    assert "stopped (interrupted)" in repr(asked)
    # The decomposition would need another matching, which was not asked for.
    assert "double_counting" not in asked.summary()


def test_the_decomposition_is_of_the_unrestricted_matching(toy_pair):
    restricted = sg.compare(*toy_pair, "optimal", min_similarity=0.9)
    assert str(restricted.double_counting()) == str(sg.compare(*toy_pair).double_counting())


def test_no_matching_is_made_twice(toy_pair):
    c = sg.compare(*toy_pair)
    assert c.rematch("optimal").rematch("mutual") is c.rematch("mutual")
    asked = sg.compare(*toy_pair, "optimal")
    assert asked.rematch("mutual").rematch("optimal") is asked
    assert asked.rematch("nearest").rematch("optimal") is asked


@pytest.mark.usefixtures("unchecked")
def test_unknown_side_is_refused(toy_pair):
    with pytest.raises(ValueError, match="on must be one of decoder, encoder, both"):
        sg.compare(*toy_pair, on="dec")


def test_isotropic_chance_is_the_expectation_at_the_actual_size(toy_pair):
    c = sg.compare(*toy_pair)
    assert c.a_to_b.isotropic_chance == sg.expected_max_cosine(47, 12)
    assert c.b_to_a.isotropic_chance == sg.expected_max_cosine(60, 12)


def test_shared_latents_are_significant_and_the_others_are_not(rng):
    a, b = oracles.related_decoders(rng, n=300, m=240, d=24, shared=150)
    c = sg.compare(make(a, "a"), make(b, "b"))
    shared = c.a_to_b.cosine > 0.95
    assert c.a_to_b.significant[shared].mean() > 0.95
    assert c.a_to_b.significant[~shared].mean() < 0.1
    assert c.a_to_b.significant_fraction == pytest.approx(c.a_to_b.significant.mean())
    assert c.summary()["a_to_b"]["significant"]["n"] == c.a_to_b.significant.sum()


def test_unequal_widths_agree_once_adjusted_for_chance():
    rng = np.random.default_rng(0)
    source = make(rng.standard_normal((300, 64)), "source")
    narrow, wide = make(rng.standard_normal((100, 64)), "narrow"), make(rng.standard_normal((4000, 64)), "wide")
    to_narrow, to_wide = sg.compare(source, narrow).a_to_b, sg.compare(source, wide).a_to_b
    assert to_wide.mmcs > to_narrow.mmcs + 0.1  # The wide dictionary only offers more candidates.
    assert to_wide.chance_adjusted == pytest.approx(to_narrow.chance_adjusted, abs=0.02)


def test_results_cannot_be_written_through(toy_pair):
    c = sg.compare(*toy_pair)
    with pytest.raises(ValueError, match="read-only"):
        c.a_to_b.similarity[0] = 2


def test_rematch_does_not_sweep_again(toy_pair):
    c = sg.compare(*toy_pair)
    assert c.rematch("greedy").swept is c.swept
    assert c.rematch("nearest") is c
    np.testing.assert_array_equal(c.rematch("greedy").a_to_b.partner, sg.compare(*toy_pair, "greedy").a_to_b.partner)


def test_progress_reaches_one(toy_pair):
    seen = []
    sg.compare(*toy_pair, progress=lambda stage, share: seen.append((stage, share)))
    last = dict(seen)
    assert {"similarities", "turned control", "own control", "chance of optimal"} <= last.keys()
    solver = {stage for stage in last if "gap" in stage}  # The solver's progress counts one round.
    assert {share for stage, share in last.items() if stage not in solver} == {1.0}


def test_progress_of_saving_names_tables_figures_and_report(toy_pair, tmp_path):
    seen = []
    sg.compare(*toy_pair).save(tmp_path / "out", formats=["png"], progress=lambda *step: seen.append(step))
    assert list(dict.fromkeys(stage for stage, _ in seen)) == ["tables", "figures", "report"]
    assert set(dict(seen).values()) == {1.0}
    shares = [share for stage, share in seen if stage == "figures"]
    assert shares == sorted(shares)
    assert len(shares) > 3


def test_bars_are_drawn_outside_a_terminal_too(toy_pair, monkeypatch):
    """In a notebook stderr is not a terminal, but bars that are asked for must be drawn."""
    import io

    import rich.console

    text, make = io.StringIO(), rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **_: make(file=text, force_terminal=True, width=80))
    with sg.progress_bars() as progress:
        sg.compare(*toy_pair, progress=progress)
    assert "similarities" in text.getvalue()
    assert "100%" in text.getvalue()


# ---- encoders, limits, double counting ----------------------------------------------------------------------------


@pytest.fixture
def with_encoders(rng):
    a, b = oracles.related_decoders(rng, 40, 30, 12, shared=25)
    return tuple(
        Dictionary.from_decoder(w, latent_axis=0, encoder=w + rng.standard_normal(w.shape), name=n)
        for w, n in ((a, "a"), (b, "b"))
    )


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("on", ["decoder", "encoder", "both"])
def test_what_is_compared(with_encoders, on, matching):
    a, b = with_encoders
    decoder, encoder = (
        exact_cosines(a.directions, b.directions),
        exact_cosines(a.encoder_directions, b.encoder_directions),
    )
    scores = {"decoder": decoder, "encoder": encoder, "both": (decoder + encoder) / 2}[on]
    c = sg.compare(a, b, matching, on=on)
    m = c.a_to_b
    matched = np.flatnonzero(m.partner_row >= 0)
    np.testing.assert_allclose(m.similarity[matched], scores[matched, m.partner_row[matched]], atol=1e-15)
    if matching == "nearest":
        np.testing.assert_array_equal(m.partner_row, scores.argmax(axis=1))
    if matching == "optimal":
        rows, cols = linear_sum_assignment(scores, maximize=True)
        assert np.nansum(m.similarity) == pytest.approx(scores[rows, cols].sum(), abs=1e-12)
    assert {"decoder": "one, cosine", "encoder": "encoder cosine", "both": "mean of"}[on] in repr(c)
    assert np.isnan(m.isotropic_chance) == (on == "both")
    assert 0 < m.chance < 1


def test_an_encoder_that_is_not_there(toy_pair):
    with pytest.raises(ValueError, match="'a' has no encoder"):
        sg.compare(*toy_pair, on="encoder")


def test_min_similarity_is_optimal_and_not_a_cut(with_encoders):
    a, b = with_encoders
    c = sg.compare(a, b, "optimal", min_similarity=0.5)
    assert (c.a_to_b.similarity[c.a_to_b.partner >= 0] >= 0.5).all()
    scores = dense(c)
    rows, cols = linear_sum_assignment(np.maximum(scores - 0.5, 0), maximize=True)
    best = np.maximum(scores - 0.5, 0)[rows, cols].sum()
    assert np.nansum(c.a_to_b.similarity - 0.5) == pytest.approx(best, abs=1e-12)
    with pytest.raises(ValueError, match="are for matching='optimal'"):
        sg.compare(a, b, "greedy", min_similarity=0.5)


def test_double_counting_is_decomposed(with_encoders):
    c = sg.compare(*with_encoders)
    d = c.double_counting()
    table = d.to_pandas().set_index(["matching", "direction"])["mean_similarity"]
    assert table["nearest", "a_to_b"] == c.a_to_b.mmcs
    for matching in ONE_TO_ONE:
        assert table[matching, "both"] == sg.compare(*with_encoders, matching).a_to_b.mean_similarity
    optimal = sg.compare(*with_encoders, "optimal")
    m = optimal.a_to_b.partner >= 0
    assert d.explained_a_to_b == pytest.approx(1 - optimal.a_to_b.mean_similarity / c.a_to_b.similarity[m].mean())
    assert d.explained_b_to_a == pytest.approx(1 - optimal.b_to_a.mean_similarity / c.b_to_a.mmcs)
    assert 0 <= d.explained_b_to_a < 1
    assert "double counting explains" in str(d)
    assert json.loads(to_json(c.summary()))["double_counting"]["hubs_of_b"]


def test_hubs_name_their_claimants():
    e = np.eye(4)
    c = sg.compare(make(e[[0, 0, 0, 1]] + 0.1 * np.arange(4)[:, None] * e[3], "a"), make(e[[2, 0, 1]], "b"))
    [hub] = c.double_counting().hubs_of_b
    assert (hub.target, hub.target_id, hub.times_taken, hub.claimants) == ("b", 1, 3, (0, 1, 2))
    assert list(hub.similarities) == sorted(hub.similarities, reverse=True)
    assert hub.similarities[0] == 1.0


def test_counting_bars_are_the_means(toy_pair):
    c = sg.compare(*toy_pair)
    ax = c.plot_double_counting()
    assert [bar.get_width() for bar in ax.patches] == [x.mean_similarity for x in c.double_counting().counts]


# ---- memory --------------------------------------------------------------------------------------------------------

_MEMORY = """
import torch, sae_geometry as sg
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
def dictionary(name, n, seed):
    rows = torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))
    return sg.Dictionary.from_decoder(rows, latent_axis=0, name=name)
a, b = dictionary("a", 3000, 0), dictionary("b", 3000, 1)
sg.compare(a, b)  # compile and start everything
a, b = dictionary("a", 40_000, 0), dictionary("b", 40_000, 1)
open("/proc/self/clear_refs", "w").write("5")  # resets the high-water mark
before = peak()
c = sg.compare(a, b)
print(peak() - before)
"""


def test_memory_above_the_inputs_is_flat():
    import subprocess
    import sys
    from pathlib import Path

    env = {"PYTHONPATH": str(Path(sg.__file__).parents[1]), "OMP_NUM_THREADS": "2", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=True, env=env)
    # The whole matrix would be 6,400 MB in float32.
    assert float(done.stdout) < 300


def test_mmcs_is_of_nearest_partners_alone(rng):
    a, b = make(rng.standard_normal((20, 8)), "a"), make(rng.standard_normal((20, 8)), "b")
    for matching in ("mutual", "greedy", "optimal"):
        made = sg.compare(a, b, matching, turns=0).a_to_b
        with pytest.raises(ValueError, match=f"this is {matching}: use mean_similarity"):
            made.mmcs  # noqa: B018
        assert made.mean_similarity <= sg.compare(a, b).a_to_b.mmcs or matching == "mutual"


def test_no_cosine_that_is_shown_or_saved_exceeds_one(rng):
    a = make(rng.standard_normal((400, 7)), "a")
    exact = (a.directions.double() ** 2).sum(dim=1)
    assert float(exact.max()) > 1, "unit rows in float32 are not quite"
    for c in (sg.compare(a, a), sg.compare(a, a, "optimal", turns=0)):
        assert c.to_pandas().cosine.max() == 1.0
        assert c.a_to_b.mean_similarity <= 1.0
    record = sg.match(a, a).record
    assert max(record["matchings"]["decoder_signed"]["pairs"]["cosine"]) == 1.0
    assert record["pw_mcc"]["signed"]["value"] <= 1.0
    assert record["mmcs"]["a_to_b"] <= 1.0


def test_a_doubt_is_about_the_stronger_control_and_names_the_similarity(toy_pair, rng):
    one = replace(sg.compare(*toy_pair).a_to_b, on="encoder")
    target, own, turned = rng.standard_normal((3, 4000, 1)).repeat(9, axis=2) / 10

    def doubt(own: np.ndarray, turned: np.ndarray) -> str | None:
        decoys = np.maximum(own, turned)
        known = replace(one.controls, target=target, own=own[:, 0], turned=turned[:, 0], decoys=decoys)
        return replace(one, controls=known)._too_weak

    assert doubt(own, turned - 0.1) is None  # One fair control is enough.
    weak = doubt(own - 0.1, turned - 0.1)
    assert weak is not None
    assert "by encoder cosine (fair: at most 50%)" in weak


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
    with pytest.raises(ValueError, match=f"two labels, of a and of b; got {len(names)}"):
        sg.compare(*toy_pair, names=names)
