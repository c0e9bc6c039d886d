"""Tests on planted data: shared, split, duplicated, rotated and dead latents, each recovered by its own tool."""

from __future__ import annotations

import numpy as np
import pytest

import sae_geometry as sg

SHARED, DUPLICATED, ROTATED, DEAD, SPLIT = range(40), range(40, 60), range(60, 90), range(90, 100), range(100, 115)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def world():
    """Return A with 115 latents in 160 dimensions, and B, in which 40 of them occur with noise, 20 occur twice, 30 are
    rotated, and 15 are split in two halves; 10 are dead in both.
    """
    rng = np.random.default_rng(0)
    a = unit(rng.standard_normal((115, 160)))
    noisy = unit(a + 0.02 * rng.standard_normal(a.shape))
    twins = unit(a[DUPLICATED] + 0.01 * rng.standard_normal((20, 160)))
    turn = np.linalg.qr(rng.standard_normal((160, 160)))[0]
    aside = 0.6 * unit(rng.standard_normal((15, 160)))
    parts = [
        noisy[SHARED], noisy[DUPLICATED], twins, a[ROTATED] @ turn, unit(rng.standard_normal((10, 160))),
        unit(a[SPLIT] + aside), unit(a[SPLIT] - aside),
    ]  # fmt: skip
    b = np.concatenate(parts)
    alive_a, alive_b = np.ones(115, dtype=bool), np.ones(len(b), dtype=bool)
    alive_a[DEAD], alive_b[110:120] = False, False
    made = [
        sg.Dictionary.from_decoder(
            rows.astype(np.float32), latent_axis=0, name=name, alive=alive, model="m", hook_point="h"
        ).keep_alive()
        for rows, name, alive in ((a, "a", alive_a), (b, "b", alive_b))
    ]
    return made[0], made[1]


def rows_of(dictionary, ids):
    return np.flatnonzero(np.isin(dictionary.latent_ids.numpy(), list(ids)))


def test_dead_latents_are_gone_and_counted(world):
    a, b = world
    assert (a.n_latents, b.n_latents) == (105, len(range(150)) - 10)
    assert not np.isin(list(DEAD), a.latent_ids.numpy()).any()
    assert a.alive.n_dropped_dead == b.alive.n_dropped_dead == 10


def test_shared_and_duplicated_are_significant_and_the_rotated_are_not(world):
    a, b = world
    m = sg.compare(a, b).a_to_b
    again = rows_of(a, [*SHARED, *DUPLICATED])
    assert (m.similarity[again] > 0.9).all()
    assert m.significant[again].all()
    assert m.significant[rows_of(a, SPLIT)].all()
    assert m.significant[rows_of(a, ROTATED)].sum() <= 2  # 2 of 30, at a false discovery rate of 5%
    assert (m.similarity > 0.9).sum() == 60


def test_duplicates_are_double_counting(world):
    a, b = world
    c = sg.compare(a, b)
    times = c.b_to_a.multiplicity
    near = c.b_to_a.similarity > 0.9
    taken = np.bincount(c.b_to_a.partner_row[near], minlength=a.n_latents)
    assert (taken[rows_of(a, DUPLICATED)] == 2).all()
    assert (taken[rows_of(a, SHARED)] == 1).all()
    assert times.sum() == b.n_latents
    one_to_one = sg.compare(a, b, "optimal").b_to_a
    assert (one_to_one.similarity > 0.9).sum() == 60  # The second copy of a duplicate needs another partner.


def test_split_latents_have_their_two_halves(world):
    a, b = world
    s = sg.split(a, b)
    halves = {parent: {120 + k, 135 + k} for k, parent in enumerate(SPLIT)}
    assert all(halves[parent] <= set(s.children(parent)) for parent in SPLIT)
    wrong = sum(len(set(s.children(parent)) - halves[parent]) for parent in SPLIT)
    assert wrong <= 0.05 * s.found.sum(), "false discoveries above their nominal rate"
    np.testing.assert_allclose(s.combination.explained[rows_of(a, SPLIT), 1], 1, atol=1e-5)


def test_recurrence_counts_what_was_planted(world):
    s = sg.seeds(world, threshold=0.9)
    assert s.recurrence.tolist() == [[45, 60], [80, 60]]
    assert s.consensus.incidence.tolist() == [45 + 80, 60]
