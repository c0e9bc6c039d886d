"""The isotropic null against published values, closed forms and simulation."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.nulls import (
    MatchedNull,
    NearestChance,
    cosine_tail,
    expected_max_cosine,
    false_discovery_found,
    fit_matched_null,
    isotropic_null,
    matched,
)
from sae_geometry.nulls import (
    cache as remembered,
)
from sae_geometry.nulls.one_to_one import paired_isotropic


@pytest.mark.parametrize(
    ("d", "m", "published"),
    [(768, 22_000, 0.145), (768, 46_080, 0.151), (512, 32_768, 0.181), (768, 4096, 0.131), (768, 1024, 0.117)],
)
def test_published_values(d, m, published):
    assert expected_max_cosine(m, d) == pytest.approx(published, abs=0.001)


@pytest.mark.parametrize(("n", "published"), [(1024, 0.112), (4096, 0.127)])
def test_published_values_of_one_to_one_matchings(n, published):
    assert paired_isotropic((n, n, 768), "optimal", draws=1).mean_similarity == pytest.approx(published, abs=0.001)


def test_the_isotropic_null_is_what_sampling_and_the_closed_form_say(rng):
    null = isotropic_null(48)
    assert (null.sample(400) @ null.sample(900, seed=1).T).max(axis=1).mean() == pytest.approx(
        expected_max_cosine(900, 48), abs=0.01
    )
    x = null.sample(50, seed=2)
    assert null.expected_max(x, n_candidates=900) == pytest.approx(expected_max_cosine(900, 48), rel=0.01)
    with pytest.raises(ValueError, match="at least one dimension; got 0"):
        isotropic_null(0)


def test_closed_forms():
    assert expected_max_cosine(1, 5) == pytest.approx(0, abs=1e-9)
    assert expected_max_cosine(1, 2, absolute=True) == pytest.approx(2 / np.pi, abs=1e-4)
    assert expected_max_cosine(1, 3, absolute=True) == pytest.approx(1 / 2, abs=1e-6)
    assert expected_max_cosine(9, 3) == pytest.approx(0.8, abs=1e-5)  # cos is uniform on a sphere: (m − 1)/(m + 1)
    assert expected_max_cosine(2, 1) == pytest.approx(0.5)
    assert expected_max_cosine(7, 1, absolute=True) == 1.0


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("d", "m"), [(2, 3), (5, 40), (64, 500), (128, 1024)])
def test_agrees_with_simulation(d, m, absolute, rng):
    # Isotropic candidates: the fixed direction may as well be the first axis.
    g = rng.standard_normal((2000, m, min(d, 2)))
    tail = rng.chisquare(d - 1, (2000, m)) if d > 2 else g[..., 1] ** 2
    cos = g[..., 0] / np.sqrt(g[..., 0] ** 2 + tail)
    best = (np.abs(cos) if absolute else cos).max(axis=1)
    error = best.std() / np.sqrt(len(best))
    assert expected_max_cosine(m, d, absolute=absolute) == pytest.approx(best.mean(), abs=4 * error)


@pytest.mark.parametrize("absolute", [False, True])
def test_tail_agrees_with_simulation(absolute, rng):
    x = rng.standard_normal((200_000, 6))
    cos = x[:, 0] / np.linalg.norm(x, axis=1)
    cos = np.abs(cos) if absolute else cos
    for t in (-0.3, 0.0, 0.2, 0.6):
        assert cosine_tail(t, 6, absolute=absolute) == pytest.approx((cos >= t).mean(), abs=0.005)


def test_grows_with_candidates_and_falls_with_width():
    values = [expected_max_cosine(m, 256) for m in (1, 10, 1000, 10**6)]
    assert values == sorted(values)
    assert expected_max_cosine(1000, 64) > expected_max_cosine(1000, 1024)


@pytest.mark.parametrize(("m", "d"), [(0, 5), (5, 0)])
def test_refuses_nothing(m, d):
    with pytest.raises(ValueError, match="at least one"):
        expected_max_cosine(m, d)


def test_random_directions_have_the_isotropic_mean(rng):
    x, y = sg.random_directions(400, 48), sg.random_directions(900, 48, seed=1)
    best = (x @ y.T).max(axis=1)
    assert best.mean() == pytest.approx(expected_max_cosine(900, 48), abs=4 * float(best.std()) / 20)
    assert np.linalg.norm(x, axis=1) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(x, sg.random_directions(400, 48))
    with pytest.raises(ValueError, match="at least one"):
        sg.random_directions(0, 48)


def crowded(rng, m=3000, d=40, pull=0.5):
    """Unit rows with a falling spectrum and a mean that is not zero."""
    scale = np.exp(-np.arange(d) / (d / 4))
    rows = (rng.standard_normal((m, d)) + pull) * scale
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_draws_have_the_mean_and_second_moment_of_the_dictionary(rng):
    rows = crowded(rng, m=30_000)
    null = sg.fit_matched_null(rows)
    assert null.shrinkage < 0.002
    drawn = null.sample(200_000).astype(float)
    noise = 4 / np.sqrt(200_000)
    np.testing.assert_allclose(drawn.mean(axis=0), rows.mean(axis=0), atol=noise)
    along = null.basis
    np.testing.assert_allclose(((drawn @ along) ** 2).mean(0), ((rows @ along) ** 2).mean(0), atol=noise)
    # Between the axes only the mean correlates the coordinates; the rest of the second moment follows.
    second = rows.T @ rows / len(rows)
    assert np.linalg.norm(drawn.T @ drawn / len(drawn) - second) < 0.05 * np.linalg.norm(second)
    np.testing.assert_array_equal(null.sample(5, seed=3), null.sample(5, seed=3))
    assert (null.sample(5, seed=3) != null.sample(5, seed=4)).any()


def test_shrinkage_is_ledoit_and_wolfs(rng):
    from sklearn.covariance import ledoit_wolf_shrinkage

    for rows in (crowded(rng, m=50), crowded(rng, m=700), rng.standard_normal((300, 40)), np.ones((4, 3))):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        assert sg.fit_matched_null(rows).shrinkage == pytest.approx(ledoit_wolf_shrinkage(unit), abs=1e-9)


def test_few_latents_are_not_their_own_null(rng):
    """60 random directions in 128 dimensions lie in a subspace of 60, which says nothing of where others would lie."""
    a, b = sg.random_directions(200, 128), sg.random_directions(60, 128, seed=1)
    p = np.sort(sg.fit_matched_null(b).p_values(a, (a @ b.T).max(axis=1), n_candidates=60))
    assert np.abs(p - (np.arange(200) + 0.5) / 200).max() < 0.13


@pytest.mark.parametrize("d", [8, 32, 768])
@pytest.mark.parametrize("absolute", [False, True])
def test_the_tail_of_an_isotropic_null_is_the_closed_form(d, absolute):
    null = MatchedNull(np.eye(d), np.zeros(d), np.full(d, 1 / d), float(d))
    t = np.array([-0.5, 0.0, 0.5, 1.5, 3, 5, 7]) / np.sqrt(d)
    t = np.minimum(t, 0.95)
    found = np.exp(null.log_tail(sg.random_directions(len(t), d), t, absolute=absolute))
    np.testing.assert_allclose(found, cosine_tail(t, d, absolute=absolute), rtol=0.01)


@pytest.mark.parametrize("absolute", [False, True])
def test_the_tail_agrees_with_simulation(absolute, rng):
    rows = crowded(rng, d=24)
    null = sg.fit_matched_null(rows)
    x = np.concatenate([rows[:4], sg.random_directions(2, 24), -rows[:2], null.basis.T[[0, -1]]])
    cos = null.sample(400_000).astype(float) @ x.T
    cos = np.abs(cos) if absolute else cos
    for p in (0.9, 0.5, 0.1, 0.01, 0.001):
        t = np.quantile(cos, 1 - p, axis=0)
        np.testing.assert_allclose(
            np.exp(null.log_tail(x, t, absolute=absolute)), p, atol=5 * np.sqrt(p / 400_000) + 0.02 * p
        )


def test_the_tail_falls_with_t_and_ends():
    rows = crowded(np.random.default_rng(0), d=64)
    null = sg.fit_matched_null(rows)
    t = np.linspace(-1, 1, 101)
    tail = null.log_tail(np.repeat(rows[:1], 101, axis=0), t)
    assert np.isfinite(tail).all()
    assert (np.diff(tail) <= 1e-9).all()
    assert tail[0] == pytest.approx(0, abs=1e-12)
    assert tail[-1] < -50


@pytest.mark.parametrize("absolute", [False, True])
def test_expected_max_agrees_with_simulation(absolute, rng):
    rows = crowded(rng, d=24)
    null = sg.fit_matched_null(rows)
    x = rows[:200]
    best = [np.abs(c).max(0) if absolute else c.max(0) for c in (null.sample(500, seed=s) @ x.T for s in range(30))]
    assert null.expected_max(x, n_candidates=500, absolute=absolute) == pytest.approx(np.mean(best), abs=0.005)


@pytest.mark.parametrize(("m", "furthest"), [(600, 0.08), (3000, 0.05)])
@pytest.mark.parametrize("absolute", [False, True])
def test_p_values_are_uniform_under_the_null(absolute, m, furthest):
    """The directions of B have nothing to do with A's beyond living where they do; the null is fitted to B."""
    rng = np.random.default_rng(0)
    a = crowded(rng, m=40, d=32)
    p = []
    for _ in range(50):
        b = crowded(rng, m=m, d=32)
        cos = a @ b.T
        best = (np.abs(cos) if absolute else cos).max(axis=1)
        p.append(sg.fit_matched_null(b).p_values(a, best, n_candidates=m, absolute=absolute))
    p = np.sort(np.concatenate(p))
    assert np.abs(p - (np.arange(len(p)) + 0.5) / len(p)).max() < furthest
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.01)


def test_false_discoveries_are_controlled():
    """300 of 1,000 latents shared with small noise, the others random: shares of false ones among the found."""
    rng = np.random.default_rng(0)
    false_shares, powers = [], []
    for _ in range(12):
        a, b = crowded(rng, m=1000, d=48), crowded(rng, m=800, d=48)
        b[:300] = a[:300] + 0.03 * rng.standard_normal((300, 48))
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        p = sg.fit_matched_null(b).p_values(a, (a @ b.T).max(axis=1), n_candidates=800)
        found = false_discovery_found(p, 0.05)
        false_shares.append(found[300:].sum() / found.sum())
        powers.append(found[:300].mean())
    assert np.mean(false_shares) < 0.07
    assert np.mean(powers) > 0.9


def test_an_isotropic_null_would_be_wrong_for_a_crowded_dictionary():
    rng = np.random.default_rng(0)
    a, b = crowded(rng, m=500, d=48), crowded(rng, m=500, d=48)
    mean = (a @ b.T).max(axis=1).mean()
    assert mean > expected_max_cosine(500, 48) + 0.2
    assert sg.fit_matched_null(b).expected_max(a, n_candidates=500) == pytest.approx(mean, abs=0.02)


def test_the_share_above_is_the_mean_of_the_p_values_and_agrees_with_simulation(rng):
    target = crowded(rng, 400, 24)
    source = crowded(rng, 300, 24)
    chance = NearestChance(source, target, 400, False, 24)
    p = np.stack([chance.p_values(np.full(300, t)) for t in (0.5, 0.7, 0.9)])
    np.testing.assert_allclose(chance.share_above([0.5, 0.7, 0.9]), p.mean(axis=1), atol=1e-12)
    drawn = [(source @ chance.null.sample(400, seed=k).T).max(axis=1) for k in range(60)]
    for t, share in zip((0.5, 0.7, 0.9), chance.share_above([0.5, 0.7, 0.9]), strict=True):
        assert share == pytest.approx(np.mean(np.array(drawn) >= t), abs=0.03)


def test_p_values_do_not_depend_on_the_frame_or_the_order(rng):
    a, b = crowded(rng, m=30), crowded(rng, m=500)
    best = (a @ b.T).max(axis=1)
    p = sg.fit_matched_null(b).p_values(a, best, n_candidates=500)
    turn = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    shuffled = rng.permutation(30)
    again = sg.fit_matched_null(b[::-1] @ turn).p_values((a @ turn)[shuffled], best[shuffled], n_candidates=500)
    np.testing.assert_allclose(again, p[shuffled], rtol=1e-3, atol=1e-12)


def test_p_values_where_there_is_nothing_to_say(rng):
    a, b = crowded(rng, m=6), crowded(rng, m=500)
    p = sg.fit_matched_null(b).p_values(a, np.array([np.nan, 0.1, 0.999, 1.0, -1.0, 0.5]), n_candidates=500)
    assert np.isnan(p[0])
    assert p[2] < 1e-6
    assert p[3] < 1e-6
    assert p[4] == pytest.approx(1.0)
    for few in (b[:1], np.repeat(b[:1], 9, axis=0), np.eye(40)[:2], np.ones((5, 1))):
        null = sg.fit_matched_null(few)
        assert not null.has_tail
        assert np.isnan(null.p_values(np.ones((2, few.shape[1])), np.ones(2), n_candidates=5)).all()
        assert np.isnan(null.expected_max(few, n_candidates=5))
        assert np.linalg.norm(null.sample(3), axis=1) == pytest.approx(1, abs=1e-5)
        with pytest.raises(ValueError, match="at least 4"):
            null.log_tail(few[:1], np.zeros(1))
    with pytest.raises(ValueError, match="at least one row"):
        sg.fit_matched_null(np.zeros((0, 4)))


def test_latents_without_an_encoder_have_no_p_value(rng):
    a, b = crowded(rng, m=6), crowded(rng, m=100)
    a[2], b[5] = 0, 0
    chance = NearestChance(a, b, 100, absolute=False, isotropic_dimensions=40)
    p = chance.p_values((a @ b.T).max(axis=1))
    assert np.flatnonzero(np.isnan(p)).tolist() == [2]
    assert 0 < chance.matched < 1


def test_within_a_dictionary_no_latent_is_judged_by_itself():
    rows = sg.random_directions(300, 64)
    cos = rows @ rows.T
    np.fill_diagonal(cos, -1)
    chance = NearestChance(rows, rows, 299, absolute=False, isotropic_dimensions=64, within=True)
    p = np.sort(chance.p_values(cos.max(axis=1)))
    assert np.abs(p - (np.arange(300) + 0.5) / 300).max() < 0.12
    assert chance.matched == pytest.approx(cos.max(axis=1).mean(), abs=0.01)
    crowd = crowded(np.random.default_rng(0), m=300, d=64)
    cos = crowd @ crowd.T
    np.fill_diagonal(cos, -1)
    chance, itself = (
        NearestChance(crowd, crowd, 299, absolute=False, isotropic_dimensions=64, within=within)
        for within in (True, False)
    )
    in_sample, across = (np.median(c.p_values(cos.max(axis=1))) for c in (itself, chance))
    assert across == pytest.approx(0.5, abs=0.12)
    assert in_sample > across + 0.05  # what the folds are for
    one = NearestChance(rows[:1], rows[:1], 0, absolute=False, isotropic_dimensions=64, within=True)
    assert np.isnan(one.p_values(np.zeros(1))).all()
    assert np.isnan(one.matched)


def test_discoveries_are_benjamini_and_hochbergs(rng):
    p = np.concatenate([rng.uniform(0, 1e-3, 20), rng.uniform(size=80), [np.nan]])
    known = np.sort(p[:100])
    passing = np.flatnonzero(known <= 0.1 * np.arange(1, 101) / 100)
    expected = p <= known[passing[-1]]
    np.testing.assert_array_equal(false_discovery_found(p, 0.1), expected)
    assert not false_discovery_found(np.full(3, np.nan)).any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        false_discovery_found(p, 1.0)


def test_nulls_are_remembered_by_key_and_the_oldest_forgotten(rng, monkeypatch):
    monkeypatch.setattr(remembered, "_KEPT", OrderedDict())
    monkeypatch.setattr(remembered, "_MOST_BYTES", 2 * remembered._bytes(fit_matched_null(np.eye(6))))
    rows = {key: rng.standard_normal((20, 6)) for key in "abc"}
    first = {key: remembered.remembered_null(key, rows[key]) for key in "ab"}
    assert remembered.remembered_null("a", rows["a"]) is first["a"]
    remembered.remembered_null("c", rows["c"])  # now b was asked for longest ago
    assert remembered.remembered_null("a", rows["a"]) is first["a"]
    again = remembered.remembered_null("b", rows["b"])
    assert again is not first["b"]
    np.testing.assert_array_equal(again.basis, first["b"].basis)


def test_tails_do_not_depend_on_how_the_rows_are_shared_out(rng, monkeypatch):
    null = fit_matched_null(rng.standard_normal((200, 24)))
    x = isotropic_null(24).sample(70)
    t = np.linspace(-0.4, 0.9, 5)
    monkeypatch.setattr(matched, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    shared = null.exceeding(x, t, n_candidates=50)
    monkeypatch.setattr(matched, "_WORTH_A_THREAD", 10_000)
    np.testing.assert_array_equal(shared, null.exceeding(x, t, n_candidates=50))
