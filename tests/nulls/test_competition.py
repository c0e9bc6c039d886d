"""Tests of significance by competition: the definition, the controls, and the nominal rates."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import dense_competition, dense_cosines, dense_turned, unit

from sae_geometry.kernels.loops.threads import in_parallel
from sae_geometry.kernels.sweep import listing_sweep, sweep
from sae_geometry.matching import greedy, match, operands
from sae_geometry.nulls import (
    LISTED,
    Controls,
    How,
    balance,
    beyond_controls,
    competition,
    excess,
    own_lists,
    own_pairs,
    pair_controls,
    principal_axes,
    q_values,
    turned,
    turned_controls,
    turned_pairs,
    undecided,
)

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import calibration
from populations import POPULATIONS, duplicated, pair, spectrum

sys.path.pop()  # The scripts umap.py and distributed.py in benchmarks/ would shadow the packages.


def anisotropic(rng: np.random.Generator, n: int, d: int, mean: float = 0.05) -> torch.Tensor:
    return torch.from_numpy(unit(rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5 + mean))


def related(seed: int = 0, sizes: tuple[int, int] = (300, 300), d: int = 48, share: float = 0.3) -> list[torch.Tensor]:
    drawn = pair(spectrum(d, 0.5), sizes, share, 0.85, seed)
    return [torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)]


def signs_of(seed: int, n_axes: int) -> np.ndarray:
    drawn = torch.randint(0, 2, (n_axes,), generator=torch.Generator().manual_seed(seed))
    return drawn.numpy() * 2.0 - 1.0


# ---------------------------------------------------------------- turning


@pytest.mark.parametrize(("m", "d"), [(200, 24), (24, 24), (25, 24), (10, 24), (2500, 8)])
def test_turning_keeps_mean_second_moment_and_inner_cosines(rng, m, d):
    y = anisotropic(rng, m, d, mean=0.6)
    z = turned(y, principal_axes(y), seed=3)
    before, after = y.double(), z.double()
    assert (before.mean(0) - after.mean(0)).abs().max() < 1e-6
    across = (
        torch.eye(d, dtype=torch.float64) - torch.outer(before.mean(0), before.mean(0)) / before.mean(0).norm() ** 2
    )
    assert (across @ (before.T @ before - after.T @ after) @ across).abs().max() < 2e-6 * m
    assert (before @ before.T - after @ after.T).abs().max() < 2e-6
    assert (before - after).abs().max() > 0.05


@pytest.mark.parametrize(("m", "d"), [(200, 24), (24, 24), (10, 24), (2, 24), (1, 24), (2500, 8)])
def test_a_mean_within_sampling_noise_is_not_kept_but_all_of_the_second_moment_is(rng, m, d):
    y = anisotropic(rng, m, d, mean=0.0)
    before, after = y.double(), turned(y, principal_axes(y), seed=3).double()
    assert (before.T @ before - after.T @ after).abs().max() < 2e-6 * m
    assert (before @ before.T - after @ after.T).abs().max() < 2e-6


def test_turning_is_the_definition(rng):
    y = anisotropic(rng, 300, 20)
    expected = dense_turned(y.numpy(), signs_of(5, 19))
    np.testing.assert_allclose(turned(y, principal_axes(y), seed=5).numpy(), expected, atol=2e-6)


def test_turning_without_a_mean_and_without_rank():
    y = torch.cat([torch.eye(6), -torch.eye(6)])  # These rows have no mean and equal eigenvalues.
    z = turned(y, principal_axes(y), seed=0)
    assert (z @ z.T - y @ y.T).abs().max() < 1e-6
    same = torch.ones(5, 3) / 3**0.5
    assert (turned(same, principal_axes(same), seed=0) - same).abs().max() < 1e-6
    flat = torch.nn.functional.pad(y, (0, 4))  # The last four dimensions are zero.
    assert (turned(flat, principal_axes(flat), seed=0)[:, 6:]).abs().max() < 1e-6


def test_turning_and_controls_have_the_same_bits_on_any_number_of_threads():
    a, b = related(sizes=(2600, 300), d=32)
    made = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        forth, back = pair_controls(a, b, listing_sweep(a, b, LISTED), How(seed=4))
        made.append([turned(b, principal_axes(b), 4).numpy(), *(vars(c)[k] for c in (forth, back) for k in FIELDS)])
    torch.set_num_threads(before)
    for one, two in zip(*made, strict=True):
        np.testing.assert_array_equal(one, two)


def test_turning_takes_the_threads_that_torch_has(monkeypatch):
    asked, module = [], sys.modules["sae_geometry.nulls.turned"]  # A function has the same name.
    monkeypatch.setattr(module, "in_parallel", lambda *how: asked.append(how[2]) or in_parallel(*how))
    monkeypatch.setattr(module, "cpu_threads", torch.get_num_threads)
    y = related(sizes=(60, 60), d=32)[1]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    turned(y, principal_axes(y), 4)
    torch.set_num_threads(before)
    assert asked == [3, 3]


FIELDS = ("target", "own", "turned", "decoys")


def test_another_seed_turns_otherwise():
    a, b = related()
    swept = listing_sweep(a, b, LISTED)
    one, two = (pair_controls(a, b, swept, How(seed=s))[0] for s in (0, 1))
    assert np.abs(one.turned - two.turned).max() > 0.01
    np.testing.assert_array_equal(one.own, two.own)


# ---------------------------------------------------------------- definition


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("sizes", [(300, 300), (150, 400), (400, 150)])
def test_both_directions_are_the_dense_definition(absolute, sizes):
    a, b = related(2, sizes)
    a[-20:] = a[:20]  # copies, which are not controls for each other
    forth, back = pair_controls(a, b, listing_sweep(a, b, LISTED, absolute=absolute), How(absolute, seed=7))
    x, y, z = a.numpy(), b.numpy(), turned(b, principal_axes(b), 7).numpy()
    size = np.abs if absolute else np.asarray
    for controls, left, right, decoys in ((forth, x, y, dense_cosines(x, z)), (back, y, x, dense_cosines(z, x))):
        target, own = size(dense_cosines(left, right)), size(dense_cosines(left, left))
        w = excess(controls.target[:, 0], controls)
        for rate in (0.02, 0.05, 0.2):
            expected = dense_competition(target, own, size(decoys), rate)
            np.testing.assert_array_equal(q_values(w, controls.odds) <= rate, expected)
        assert expected.any()


def test_the_turned_control_alone_is_the_dense_definition():
    a, b = related(3)
    controls, _ = turned_controls(a, b, listing_sweep(a, b, LISTED), How(seed=1))
    decoys = dense_cosines(a.numpy(), turned(b, principal_axes(b), 1).numpy())
    expected = dense_competition(dense_cosines(a.numpy(), b.numpy()), None, decoys, 0.05)
    found = q_values(excess(controls.target[:, 0], controls), controls.odds) <= 0.05
    np.testing.assert_array_equal(found, expected)
    assert expected.any()


def test_of_both_cosines_the_controls_are_means_of_cosines_too():
    (a, b), (ea, eb) = related(0), related(1)
    x, y = operands((a, ea), (b, eb), "both")
    forth, back = pair_controls(x, y, listing_sweep(x, y, LISTED), How(own_scales=(2.0, 0.5)))
    for controls, dec, enc in ((forth, a, ea), (back, b, eb)):
        mean = (dense_cosines(dec, dec) + dense_cosines(enc, enc)) / 2
        np.fill_diagonal(mean, -1)
        np.testing.assert_allclose(controls.own, mean.max(axis=1), atol=1e-6)


@pytest.mark.parametrize("copies", [2, 12, 40])
def test_copies_are_one_direction_and_no_control(rng, copies):
    x = torch.from_numpy(unit(rng.standard_normal((30, 16))))
    crowd = torch.cat([x[:1].repeat(copies, 1), x])
    alone = own_lists(x).similarity
    np.testing.assert_allclose(own_lists(crowd).similarity[:copies, 0], alone[0, 0], atol=1e-7)


def test_q_values_are_monotone_and_equals_pass_together():
    w = np.array([0.9, 0.8, 0.8, -0.8, 0.7, -0.1, 0.05, 0.0])
    q = q_values(w, 1.0)
    np.testing.assert_allclose(q[[0, 1, 2, 4, 6]], [0.5, 0.5, 0.5, 0.5, 0.6])  # (1 + losses) / wins: 2/4, 3/5
    assert (q[[3, 5, 7]] == 1).all()
    np.testing.assert_allclose(q_values(np.array([0.9, 0.8, -0.85]), 1.0), [1.0, 1.0, 1.0])
    np.testing.assert_allclose(q_values(np.linspace(0.1, 1, 40), 3.0), 3 / 40)


def test_a_loss_counts_by_the_candidates_of_the_stronger_decoy():
    w = np.array([0.9, 0.8, 0.7, -0.75, -0.6, 0.5])
    odds = np.array([1.0, 3.0, 1.0, 1.0, 3.0, 3.0])  # three targets per own latent, one per turned latent
    np.testing.assert_allclose(q_values(w, odds)[[0, 1]], [1.0, 1.0])  # 3 / 2 > 1, above all losses
    w = np.concatenate([np.linspace(1, 2, 100), w])
    odds = np.concatenate([np.ones(100), odds])
    left = 1 - 103 / 106  # At least one half is assumed to be left.
    assert left < 0.5
    np.testing.assert_allclose(q_values(w, odds)[[0, 100, 102, 105]], [0.03, 3 / 102, 5 / 103, 11 / 104], atol=1e-3)


def test_one_to_one_partners_are_held_to_the_thresholds_of_the_nearest():
    w = np.array([0.9, 0.8, 0.7, 0.6, -0.5])
    q = q_values(w, 1.0)
    np.testing.assert_array_equal(q_values(w, 1.0, at=w), q)
    assert q_values(w, 1.0, at=np.array([0.61, -0.2, 0.01]))[0] == q[3]


def test_ratio_counts_the_targets_for_each_decoy():
    a, b = related(0, (100, 400))
    forth, back = pair_controls(a, b, listing_sweep(a, b, LISTED), How())
    assert forth.ratio == pytest.approx(400 / 99)
    assert back.ratio == 1.0


def test_few_latents_are_accepted_but_never_significant(rng):
    for n, m in ((1, 1), (1, 5), (2, 2), (3, 40)):
        a, b = anisotropic(rng, n, 12), anisotropic(rng, m, 12)
        b[0] = a[0]
        for controls in pair_controls(a, b, listing_sweep(a, b, LISTED), How()):
            q = q_values(excess(controls.target[:, 0], controls), controls.odds)
            assert np.isfinite(q).all()
            assert (q > 0.05).all()  # One win among so few latents is not significant.


# ---------------------------------------------------------------- fairness, and the share beyond the controls


def test_balance_is_even_where_a_control_is_fair_and_not_where_it_is_weak(rng):
    s, q = rng.standard_normal((2, 4000))
    fair, weak = balance(s, q), balance(s, q - 0.5)
    assert fair.value == pytest.approx(0.5, abs=0.04)
    assert weak.low > 0.55
    assert np.isnan(balance(s, np.full(4000, -np.inf)).value)


def test_undecided_are_those_below_every_significant_one():
    w = np.concatenate([np.linspace(0.5, 0.9, 60), [-0.6, -0.3, -0.2, 0.1]])
    assert undecided(w, 1.0).sum() == 3
    assert undecided(-w, 1.0).all()


def test_two_wins_less_one_is_the_share_and_nothing_where_nothing_is_shared():
    for share in (0.0, 0.3, 0.6):
        drawn = pair(POPULATIONS["isotropic"](64), (800, 800), share, 0.8, 1)
        a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
        controls, _ = pair_controls(a, b, listing_sweep(a, b, LISTED), How())
        beyond = beyond_controls(excess(controls.target[:, 0], controls))
        assert beyond.low <= share
        assert beyond.value <= share + 0.04
        alone, _ = turned_controls(a, b, listing_sweep(a, b, LISTED), How())
        beyond = beyond_controls(excess(alone.target[:, 0], alone))
        assert beyond.value == pytest.approx(share, abs=0.08)


def test_against_a_wider_dictionary_own_latents_that_lose_count_for_as_many(rng):
    w = np.repeat([1.0, -1.0, -1.0], [60, 10, 5])
    odds = np.repeat([3.0, 3.0, 1.0], [60, 10, 5])
    assert beyond_controls(w, odds).value == pytest.approx((60 - 35) / 75)
    drawn = pair(POPULATIONS["families"](96), (300, 1200), 0.0, 0.0, 0)
    a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
    controls, _ = pair_controls(a, b, listing_sweep(a, b, LISTED), How(turns=1))
    w = excess(controls.target[:, 0], controls)
    assert beyond_controls(w, controls.odds).value == 0
    assert beyond_controls(w).value > 0.05  # This is wrong, because nothing is shared.


def test_within_a_dictionary_twins_are_significant_and_the_bulk_is_not():
    drawn = duplicated(spectrum(96, 0.5), 0.2, 0.5)(700, np.random.default_rng(0)).astype(np.float32)
    a = torch.from_numpy(drawn)
    swept = listing_sweep(a, None, LISTED)
    controls, _ = turned_controls(a, a, replace(swept, cols=swept.rows), How())
    assert not np.isfinite(controls.own).any()
    found = q_values(excess(controls.target[:, 0], controls), controls.odds) <= 0.05
    near = dense_cosines(drawn, drawn)
    np.fill_diagonal(near, -1)
    member = near.max(axis=1) > 0.8
    assert found[member].mean() > 0.95
    assert found[~member].mean() < 0.05


# ---------------------------------------------------------------- null expectation


@pytest.mark.parametrize("kind", ["isotropic", "spectrum 1/k^.5", "spectrum 1/k", "low rank", "mixture"])
def test_turned_gives_what_unrelated_dictionaries_give(kind):
    drawn = pair(POPULATIONS[kind](128), (1000, 1000), 0.0, 0.0, 3)
    a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
    swept = listing_sweep(a, b, LISTED)
    forth, _ = pair_controls(a, b, swept, How())
    real = float(swept.rows.score[:, 0].mean())
    assert np.mean(forth.turned_means) == pytest.approx(real, abs=0.025)
    assert forth.own.mean() == pytest.approx(real, abs=0.025)
    paired = match(a, b, "optimal")
    assert turned_pairs(a, b, "optimal", 2).mean_similarity == pytest.approx(paired.total / 1000, abs=0.015)


def test_every_turn_is_another(rng):
    a, b = (torch.from_numpy(unit(rng.standard_normal((40, 16)))).float() for _ in range(2))
    first, both = (turned_pairs(a, b, "greedy", turns) for turns in (1, 2))
    assert both.spread > 0
    assert both.mean_similarity != first.mean_similarity


def test_own_halves_know_of_families_that_turning_breaks_up():
    drawn = pair(POPULATIONS["families"](128), (600, 600), 0.0, 0.0, 3)
    a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
    real = match(a, b, "optimal").total / 600
    assert turned_pairs(a, b, "optimal", 1).mean_similarity < real - 0.04
    assert own_pairs(a, "optimal").mean_similarity == pytest.approx(real, abs=0.03)
    assert np.isnan(own_pairs(a[:1], "optimal").mean_similarity)


@pytest.mark.parametrize("absolute", [False, True])
def test_lists_of_a_dictionary_spare_its_halves_a_sweep_and_change_nothing(absolute, monkeypatch):
    x = torch.from_numpy(pair(POPULATIONS["families"](16), (300, 300), 0.0, 0.0, 3).a)
    x = torch.cat([x, x[:9], x[:1].expand(12, -1)])  # copies, and a row whose nine nearest are all copies
    plain, lists = own_pairs(x, "greedy", absolute=absolute), own_lists(x, absolute)
    again: list[int] = []
    monkeypatch.setattr(
        greedy, "listing_sweep", lambda a, *b, **how: again.append(len(a)) or listing_sweep(a, *b, **how)
    )
    # repr is compared because nan is not equal to itself.
    assert repr(own_pairs(x, "greedy", absolute=absolute, lists=lists)) == repr(plain)
    assert max(again) < 100  # A half has 160 rows.


# ---------------------------------------------------------------- calibration, as in benchmarks/calibration.py

FAST = ("isotropic", "spectrum 1/k", "mixture", "families", "private families", "nonnegative", "near copies")


def kept(outcomes: list[calibration.Outcome]) -> tuple[float, float]:
    return float(np.mean([o.false_share for o in outcomes])), float(np.mean([o.power for o in outcomes]))


def draws(kind: str, without: str | None = None) -> list[calibration.Outcome]:
    """Judge A → B in three draws of 600 × 192 with 30% shared at a cosine of 0.8; `without` omits a control."""
    made = []
    for seed in range(3):
        drawn = pair(POPULATIONS[kind](192), (600, 600), 0.3, 0.8, seed)
        a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
        controls, _ = pair_controls(a, b, listing_sweep(a, b, LISTED), How(seed=seed))
        if without == "own":
            controls, _ = turned_controls(a, b, listing_sweep(a, b, LISTED), How(seed=seed))
        if without == "copies are one":
            raw = sweep(a, None, LISTED).rows.score.numpy()
            decoys = -np.sort(-np.concatenate([raw, controls.decoys], axis=1), axis=1)[:, :LISTED]
            controls = replace(controls, decoys=decoys)
        made.append(calibration.outcome(controls, drawn.shared_a))
    return made


@pytest.mark.parametrize("kind", FAST)
def test_false_discoveries_stay_below_the_promise_and_shared_latents_are_found(kind):
    false, power = kept(draws(kind))
    assert false <= 0.07
    assert power >= (0.7 if kind == "private families" else 0.8)


def test_latents_with_several_partners_do_not_rank_last(rng, monkeypatch):
    """Three partners at one cosine inflate the local spread, which is therefore limited to six median spreads."""
    target, decoys = (-np.sort(-rng.normal(0, 0.04, (400, 2, 300)), axis=2)[:, k, :LISTED] for k in (0, 1))
    target[:40, :3] = 0.8
    controls = Controls(target, np.full(400, -np.inf), decoys[:, 0], decoys, 1.0, ())
    w = excess(target[:, 0], controls)
    assert (w[:40] > np.abs(w[40:]).max()).all()
    assert (q_values(w, controls.odds)[:40] <= 0.05).all()
    monkeypatch.setattr(competition, "_LOOSEST", np.inf)
    w = excess(target[:, 0], controls)
    assert np.median(w[:40]) < np.abs(w[40:]).max()


def test_the_bounds_see_a_control_that_is_missing():
    assert kept(draws("private families", without="own"))[0] > 0.2
    assert kept(draws("near copies", without="copies are one"))[1] < 0.5


def test_from_the_noisy_side_the_rate_holds_and_only_since_found_latents_are_no_decoys(monkeypatch):
    """B's shared latents are noisy copies outside the population, so B has fewer decoys than A has targets."""
    seen = []
    for seed in range(6):
        drawn = pair(POPULATIONS["heavy tails"](128), (800, 800), 0.3, 0.8, seed)
        a, b = torch.from_numpy(drawn.a), torch.from_numpy(drawn.b)
        seen.append((pair_controls(a, b, listing_sweep(a, b, LISTED), How(seed=seed, turns=1))[1], drawn.shared_b))
    false, power = kept([calibration.outcome(*one) for one in seen])
    assert false <= 0.07
    assert power >= 0.8
    monkeypatch.setattr(competition, "_LEFT", 1.0)
    assert kept([calibration.outcome(*one) for one in seen])[0] > 0.07


@pytest.mark.parametrize("name", ["isotropic", "mixture"])
def test_a_wide_dictionary_against_a_narrow_one_keeps_rate_and_power(name):
    """The narrow dictionary offers fewer candidates than the wide one has own latents, so decoys are subsampled."""
    kept = [calibration.judged(pair(POPULATIONS[name](128), (600, 200), 0.5, 0.8, seed), seed)[0] for seed in range(4)]
    assert np.mean([o.false_share for o in kept]) <= 0.07
    assert np.mean([o.power for o in kept]) >= 0.8
