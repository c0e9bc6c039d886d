"""Tests of the output of `compare`: text, summary, null expectations and progress."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import oracles
import pytest
from pair_cases import make

import sae_geometry as sg
from sae_geometry.results.store import to_json


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


def test_the_number_of_turns_is_checked(toy_pair):
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


def test_ctrl_c_in_an_implied_matching_stops(toy_pair, monkeypatch):
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


def test_no_cosine_that_is_shown_or_saved_exceeds_one(rng):
    a = make(rng.standard_normal((400, 7)), "a")
    exact = (a.directions.double() ** 2).sum(dim=1)
    assert float(exact.max()) > 1, "the norms of float32 rows should differ from 1 slightly"
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
    assert "by encoder cosine, where fair controls allow 50%" in weak
