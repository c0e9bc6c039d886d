"""Few directions in many dimensions: the null beside its definition, which forms the whole covariance."""

from __future__ import annotations

import tracemalloc

import numpy as np
import oracles
import pytest

import sae_geometry as sg
from sae_geometry.nulls import MatchedNull, axes, isotropic_null, matched
from sae_geometry.nulls.moments import matching_moments

WIDE = 16_384


def crowded(rng, m, d, pull=0.5):
    """Rows with a falling spectrum and a mean that is not zero."""
    return (rng.standard_normal((m, d)) + pull) * np.exp(-np.arange(d) / (d / 4))


def dense_null(rows: np.ndarray) -> MatchedNull:
    """The definition: every eigenvector of the d × d covariance, shrunk (Ledoit & Wolf 2004)."""
    rows = oracles.unit(rows).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    (m, d), centre = rows.shape, rows.mean(axis=0)
    x = rows - centre
    covariance = x.T @ x / m
    mu = np.trace(covariance) / d
    delta = ((covariance - mu * np.eye(d)) ** 2).sum()
    beta = sum(((np.outer(v, v) - covariance) ** 2).sum() for v in x) / m**2
    share = min(beta, delta) / delta if delta > 1e-30 else 0.0
    variance, basis = np.linalg.eigh((1 - share) * covariance + share * mu * np.eye(d))
    basis = evened(basis, variance, centre)
    along = centre @ basis
    second = variance + along**2
    dimensions = (
        second.sum() ** 2
        / (np.linalg.eigvalsh(basis @ np.diag(variance) @ basis.T + np.outer(centre, centre)) ** 2).sum()
    )
    mean = along
    if dimensions >= 4:
        mean, variance = matching_moments(along, second, np.ones(d))
    return MatchedNull(basis, mean, np.maximum(variance, 0), float(dimensions), share)


def evened(basis: np.ndarray, variance: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Where many axes have one variance any turn of them will do: the one that shares the centre among them evenly."""
    same = np.flatnonzero(np.abs(variance - variance[0]) < 1e-12)
    along = centre @ basis[:, same]
    if len(same) < 2 or np.linalg.norm(along) < 1e-12:
        return basis
    mirror = along / np.linalg.norm(along) - 1 / np.sqrt(len(same))
    basis = basis.copy()
    basis[:, same] -= 2 * np.outer(basis[:, same] @ mirror, mirror) / (mirror @ mirror)
    return basis


CASES = {
    "one": lambda rng: crowded(rng, 1, 20),
    "two": lambda rng: crowded(rng, 2, 20),
    "few": lambda rng: crowded(rng, 7, 60),
    "one fewer than dimensions": lambda rng: crowded(rng, 31, 32),
    "as many as dimensions": lambda rng: crowded(rng, 32, 32),
    "more than dimensions": lambda rng: crowded(rng, 33, 32),
    "without a mean": lambda rng: np.concatenate([c := crowded(rng, 9, 40), -c]),
    "each one twice": lambda rng: np.repeat(crowded(rng, 12, 50), 2, axis=0),
    "one and its negative": lambda rng: np.concatenate([c := crowded(rng, 1, 20), -c]),
    "at right angles": lambda rng: np.eye(30)[:9],
    "no preference": lambda rng: rng.standard_normal((30, 64)),
    "a line": lambda rng: np.ones((5, 1)),
    "one on a line": lambda rng: np.ones((1, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_dense_definition(case, rng):
    rows = CASES[case](rng)
    m, d = rows.shape
    null, dense = sg.fit_matched_null(rows), dense_null(rows)
    r = null.basis.shape[1]
    assert r == d if d <= m else r < m
    np.testing.assert_allclose(null.basis.T @ null.basis, np.eye(r), atol=1e-10)
    assert null.d_in == d
    assert null.shrinkage == pytest.approx(dense.shrinkage, abs=1e-6)
    assert null.dimensions == pytest.approx(dense.dimensions, rel=1e-5)
    assert null.has_tail == dense.has_tail
    np.testing.assert_allclose(mean_of(null), mean_of(dense), atol=1e-6)
    np.testing.assert_allclose(covariance_of(null), covariance_of(dense), atol=1e-6)
    if not null.has_tail:
        return
    x = oracles.unit(np.concatenate([rows[:4], -rows[:2], rng.standard_normal((4, d)), null.basis.T[-2:]]))
    for t in (-0.6, -0.1, 0.0, 0.2, 0.5, 0.9):
        for absolute in (False, True):
            found, wanted = (n.log_tail(x, np.full(len(x), t), absolute=absolute) for n in (null, dense))
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert null.expected_max(x, n_candidates=m) == pytest.approx(dense.expected_max(x, n_candidates=m), abs=1e-4)


def mean_of(null: MatchedNull) -> np.ndarray:
    """E[g]."""
    return null.basis @ null.mean + (0 if null.rest_mean is None else null.rest_mean)


def covariance_of(null: MatchedNull) -> np.ndarray:
    """Var[g], [d, d]."""
    beside = np.eye(null.d_in) - null.basis @ null.basis.T
    return (null.basis * null.variance) @ null.basis.T + null.rest_variance * beside


def test_draws_are_those_of_the_dense_definition(rng):
    rows = crowded(rng, 20, 60)
    null, dense = sg.fit_matched_null(rows), dense_null(rows)
    drawn, wanted = (n.sample(100_000, seed=1).astype(float) for n in (null, dense))
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(drawn.mean(axis=0), wanted.mean(axis=0), atol=6 / np.sqrt(100_000))
    second = drawn.T @ drawn / len(drawn), wanted.T @ wanted / len(wanted)
    assert np.linalg.norm(second[0] - second[1]) < 0.03 * np.linalg.norm(second[1])
    np.testing.assert_array_equal(null.sample(5, seed=3), null.sample(5, seed=3))


@pytest.mark.parametrize(("m", "d", "seed"), [(40, 256, 7), (200, 64, 1), (20, 24, 9), (400, 64, 3)])
def test_draws_have_nothing_to_do_with_data_of_the_same_seed(m, d, seed):
    null = sg.fit_matched_null(np.random.default_rng(seed).standard_normal((m, d)))
    assert (null.shrinkage < 1) == (seed == 7 or seed == 3), "two of each: shrunk in part, and wholly"
    drawn = null.sample(30, seed=0)
    same_seed = oracles.unit(np.random.default_rng(0).standard_normal((30, d)))
    assert np.abs((drawn * same_seed).sum(axis=1)).max() < 0.75


def test_many_draws_are_drawn_in_parts(monkeypatch, rng):
    nulls = sg.fit_matched_null(rng.standard_normal((90, 40))), isotropic_null(40)
    whole = [n.sample(50) for n in nulls]
    monkeypatch.setattr(matched, "_DRAWN", 40 * 7)
    for n, before in zip(nulls, whole, strict=True):
        np.testing.assert_allclose(n.sample(50), before, atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 700), (700, 300)])
@pytest.mark.parametrize("fall", ["none", "slow", "fast"])
def test_leading_axes_alone_say_nearly_the_same(shape, fall, monkeypatch, rng):
    """Where neither rows nor dimensions are few: the leading axes, and beside them the variance towards each x."""
    m, d = shape
    scale = {"none": np.ones(d), "slow": np.arange(1, d + 1) ** -0.25, "fast": np.exp(-np.arange(d) / (d / 6))}[fall]
    rows, x = (oracles.unit((rng.standard_normal((n, d)) + 0.2) * scale) for n in (m, 60))
    best = (x @ rows.T).max(axis=1).astype(np.float64)
    exact = sg.fit_matched_null(rows)
    monkeypatch.setattr(axes, "EXACT", 100)
    monkeypatch.setattr(axes, "LEADING", 64)
    null = sg.fit_matched_null(rows)
    assert null.basis.shape[1] == 65 < exact.basis.shape[1]
    assert null.shrinkage == pytest.approx(exact.shrinkage, abs=1e-3)
    assert null.dimensions == pytest.approx(exact.dimensions, rel=1e-3)
    assert null.expected_max(x, n_candidates=m) == pytest.approx(exact.expected_max(x, n_candidates=m), abs=0.003)
    p, wanted = (n.p_values(x, best, n_candidates=m) for n in (null, exact))
    np.testing.assert_allclose(p, wanted, atol=0.05)
    drawn, dense = (n.sample(20_000).astype(float) for n in (null, exact))
    second = drawn.T @ drawn / 20_000, dense.T @ dense / 20_000
    assert np.linalg.norm(second[0] - second[1]) < 0.25 * np.linalg.norm(second[1])
    towards = [np.mean((x @ v.T) ** 2) for v in (drawn, dense)]  # what unevenness beside the axes adds up to
    assert towards[0] == pytest.approx(towards[1], rel=0.03)


def test_thirty_latents_in_16_384_dimensions_cost_what_thirty_cost(rng):
    a, b = (rng.standard_normal((n, WIDE)).astype(np.float32) for n in (30, 25))
    b[:10] = a[:10] + 0.1 * b[:10]
    tracemalloc.start()
    c = sg.compare(a, b)
    text, summary = repr(c), c.a_to_b.summary()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # a d × d matrix alone is 2.1 GB
    assert "nan" not in text
    assert c.a_to_b.found[:10].all()
    assert not c.a_to_b.found[10:].any()
    chance = summary["chance"]
    assert chance["nearest_isotropic"] < chance["nearest_covariance_matched"] < 0.1


def test_isotropic_directions_need_no_basis():
    tracemalloc.start()
    null = isotropic_null(WIDE)
    drawn = null.sample(20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert np.abs(drawn @ drawn.T - np.eye(20)).max() < 0.06
    t = np.array([0.01, 0.03])
    np.testing.assert_allclose(np.exp(null.log_tail(drawn[:2], t)), sg.nulls.cosine_tail(t, WIDE), rtol=0.01)
