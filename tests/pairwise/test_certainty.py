"""Tests of margins, of selecting pairs by margin, and of a control dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import dense_cosines, unit

import sae_geometry as sg
from sae_geometry.pairwise.certainty import coverage_curve


@pytest.fixture
def pair(rng):
    a = unit(rng.standard_normal((60, 12))).astype(np.float32)
    b = unit(rng.standard_normal((45, 12))).astype(np.float32)
    b[:20] = unit(a[:20] + 0.15 * rng.standard_normal((20, 12)))
    return a, b


@pytest.mark.parametrize("matching", ["nearest", "mutual", "greedy", "optimal"])
@pytest.mark.parametrize("signed", [True, False])
def test_margins_are_their_definition(pair, matching, signed):
    c = sg.compare(*pair, matching, signed=signed, turns=1)
    scores = dense_cosines(*pair)
    scores = scores if signed else np.abs(scores)
    for m, certain, s in ((c.a_to_b, c.certainty[0], scores), (c.b_to_a, c.certainty[1], scores.T)):
        for i, p in enumerate(m.partner_row):
            if p < 0:
                assert np.isnan(certain.least[i])
                continue
            assert certain.margin[i] == pytest.approx(s[i, p] - np.delete(s[i], p).max(), abs=1e-7)
            assert certain.margin_of_partner[i] == pytest.approx(s[i, p] - np.delete(s[:, p], i).max(), abs=1e-7)
        matched = m.partner_row >= 0
        np.testing.assert_array_equal(certain.least[matched] > 0, m.mutual[matched])
    frame = c.to_pandas()
    column = "margin" if matching == "nearest" else "one_to_one_margin"
    both = np.concatenate([x.margin if matching == "nearest" else x.least for x in c.certainty])
    np.testing.assert_array_equal(frame[column], both)
    solved = matching in ("optimal", "nearest")  # `compare` solves the optimal matching for "nearest" too.
    assert frame["one_to_one_loss_if_forbidden"].notna().any() == solved


@pytest.mark.parametrize("matching", ["nearest", "mutual", "optimal"])
def test_pairs_below_a_margin_are_left_out_and_only_these(pair, matching):
    whole = sg.compare(*pair, matching, turns=1)
    some = sg.compare(*pair, matching, min_margin=0.2, turns=1)
    for m, full, certain in zip((some.a_to_b, some.b_to_a), (whole.a_to_b, whole.b_to_a), whole.certainty, strict=True):
        kept = certain.least >= 0.2
        assert 5 < kept.sum() < full.n_matched
        np.testing.assert_array_equal(m.partner_row, np.where(kept, full.partner_row, -1))
        assert m.mean_similarity == pytest.approx(full.similarity[kept].mean())
        assert m.multiplicity.sum() == kept.sum()
        assert not m.significant[~kept].any()
        assert np.isnan(m.chance)  # The null expectation is for all pairs, not for a selection.
    assert "margin below 0.2" in repr(some)
    assert some.rematch("mutual").a_to_b.n_matched == sg.compare(*pair, "mutual").a_to_b.n_matched
    np.testing.assert_array_equal(some.nearest_a_to_b.similarity, whole.nearest_a_to_b.similarity)


def test_a_margin_that_is_not_a_number_is_refused(pair):
    with pytest.raises(ValueError, match="min_margin must be a finite difference"):
        sg.compare(*pair, min_margin=float("nan"))


def test_one_candidate_has_no_rival():
    c = sg.compare(np.eye(1, 4), np.eye(1, 4))
    assert np.isposinf(c.certainty[0].least).all()
    assert sg.compare(np.eye(1, 4), np.eye(1, 4), min_margin=0.5).a_to_b.n_matched == 1


def test_the_curve_takes_the_most_certain_first():
    share, mean = coverage_curve(np.array([0.9, 0.2, np.nan, 0.7]), np.array([0.1, -0.1, np.nan, 0.5]))
    np.testing.assert_allclose(share, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(mean, [0.7, 0.8, 0.6])


def test_the_forced_tail_of_an_optimal_matching_is_marked(pair):
    c = sg.compare(*pair, "optimal", turns=1)
    s, at = dense_cosines(*pair), c.a_to_b.partner_row
    forced = [p >= 0 and s[i, p] < s[i].max() - 1e-7 and s[i, p] < s[:, p].max() - 1e-7 for i, p in enumerate(at)]
    np.testing.assert_array_equal(c.certainty[0].forced, forced)
    assert f"{sum(forced)} pairs of 45 in which both latents have a closer candidate" in " ".join(c.details().split())
    assert "forced" not in c.rematch("greedy").details()


def test_a_control_dictionary_has_the_same_table(pair, rng):
    control = unit(rng.standard_normal((50, 12))).astype(np.float32)
    c = sg.compare(*pair, "mutual", control=control)
    for beside, x in zip(c.against_control, pair, strict=True):
        alone = sg.compare(x, control, "mutual")
        np.testing.assert_array_equal(beside.a_to_b.partner_row, alone.a_to_b.partner_row)
        assert beside.a_to_b.chance == alone.a_to_b.chance
    for letter, beside in zip("AB", c.against_control, strict=True):
        row = next(line for line in reversed(repr(c).splitlines()) if line.startswith(f"  {letter} with control"))
        assert row.split()[-1] == f"{beside.nearest_a_to_b.mmcs:.3f}"
        assert row.split()[3] in beside.headline
        assert f"{beside.a.name} → {beside.b.name}" in c.details()
    assert c.summary()["control"]["b_to_control"]["n_matched"] == c.against_control[1].a_to_b.n_matched
    assert sg.compare(*pair, "mutual").summary().get("control") is None


def test_a_control_may_come_from_another_place(pair):
    a, b = (sg.Dictionary.from_decoder(x, latent_axis=0, hook_point="h", model="m") for x in pair)
    other = sg.Dictionary.from_decoder(pair[0], latent_axis=0, hook_point="elsewhere", model="m")
    c = sg.compare(a, b, control=other)
    assert not any("differ" in text for text in c.caveats)
    with pytest.raises(ValueError, match="hook point"):
        sg.compare(a, other)
