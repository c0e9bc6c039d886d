"""Tests of the initial layout and the optimizer: reproducible with any number of threads, and as good as umap-learn."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from scipy.sparse import csr_array

from sae_geometry.embedding.neighbors import exact_neighbors
from sae_geometry.embedding.optimizer import (
    boxed,
    curve_of,
    fuzzy_weights,
    import_umap,
    optimize,
    place,
    spectral_start,
)
from sae_geometry.embedding.optimizer_loops import mixed, move_vertices, power
from sae_geometry.embedding.quality import measure_evidence


@pytest.fixture(scope="module")
def cloud():
    rng = np.random.default_rng(5)
    centers = rng.standard_normal((6, 24)) * 1.5
    return torch.from_numpy(oracles.unit(centers[rng.integers(6, size=700)] + rng.standard_normal((700, 24))))


@pytest.fixture(scope="module")
def weights(cloud):
    return fuzzy_weights(exact_neighbors(cloud, 15))


def test_loops_of_umap_learn_are_compiled_once_for_all_processes(weights):
    assert weights.nnz
    for loop in (import_umap().smooth_knn_dist, import_umap().compute_membership_strengths):
        assert loop.signatures
        assert loop.stats.cache_path


def test_powers():
    base = np.float32(10) ** np.linspace(-30, 30, 4001).astype(np.float32)
    for exponent in (np.float32(0.2), np.float32(0.8951), np.float32(1.9)):
        truth = base.astype(np.float64) ** float(exponent)
        fits = (truth > 1e-37) & (truth < 1e38)
        found = np.array([power(b, exponent) for b in base[fits]], dtype=np.float64)
        assert np.abs(found / truth[fits] - 1).max() < 1e-4
    near = np.float32(10) ** np.linspace(-6, 4, 500).astype(np.float32)
    found = np.array([power(b, np.float32(0.8951)) for b in near], dtype=np.float64)
    assert np.abs(found / near.astype(np.float64) ** float(np.float32(0.8951)) - 1).max() < 2e-5


def by_the_definition(graph, here, fixed, curve, epoch, alpha, seed, negatives):
    """Run one epoch in plain numpy, in float64, one vertex at a time."""
    indptr, indices, rate = graph
    a, b = (float(c) for c in curve)
    n, out = len(here), here.astype(np.float64).copy()
    golden, wrap = 0x9E3779B97F4A7C15, (1 << 64) - 1
    for i in range(fixed, n):
        at = here[i].astype(np.float64)
        state = int(mixed(np.uint64((seed + golden * (epoch * n + i + 1)) & wrap)))
        for e in range(indptr[i], indptr[i + 1]):
            if np.floor(rate[e] * np.float32(epoch + 1)) <= np.floor(rate[e] * np.float32(epoch)):
                continue
            j = indices[e]
            for _ in range(1 if j < fixed else 2):
                apart = at - here[j]
                square = (apart**2).sum()
                if square:
                    pull = -2 * a * b * square ** (b - 1) / (1 + a * square**b)
                    at = at + alpha * np.clip(pull * apart, -4, 4)
            push = np.zeros(2)
            for drawing in range(negatives):
                random = int(mixed(np.uint64((state + golden * (drawing + 1)) & wrap)))
                apart = at - here[((random >> 32) * (fixed or n)) >> 32]
                square = (apart**2).sum()
                push += np.clip(2 * b / ((0.001 + square) * (1 + a * square**b)) * apart, -4, 4)
            state = (state + golden * negatives) & wrap
            at = at + alpha * push
        out[i] = at
    return out


@pytest.mark.parametrize("fixed", [0, 300])
@pytest.mark.parametrize("epoch", [0, 7])
def test_an_epoch_is_the_definition(weights, fixed, epoch):
    graph = (
        weights.indptr.astype(np.int64),
        weights.indices.astype(np.int32),
        (weights.data / weights.data.max()).astype(np.float32),
    )
    here = (np.random.default_rng(0).random((700, 2)) * 10).astype(np.float32)
    there = here.copy()
    curve = curve_of(0.1)
    move_vertices(0, 700, graph, here, there, fixed, curve, epoch, 0.5, np.uint64(9), 5)
    expected = by_the_definition(graph, here, fixed, curve, epoch, 0.5, 9, 5)
    np.testing.assert_allclose(there, expected, atol=5e-3)
    assert np.abs(there - here)[fixed:].max() > 0.1
    np.testing.assert_array_equal(there[:fixed], here[:fixed])


def test_any_number_of_threads_gives_the_same_bits(weights):
    start = boxed(spectral_start(weights), 0)
    one, *others = (
        optimize(weights, start, curve_of(0.1), n_epochs=12, seed=1, threads=t).tobytes() for t in (1, 2, 5)
    )
    assert all(other == one for other in others)
    assert optimize(weights, start, curve_of(0.1), n_epochs=12, seed=2, threads=2).tobytes() != one


def test_layouts_are_as_good_as_umap_learns(cloud, weights):
    """From the same start and over the same epochs, no score may be lower by more than the spread over seeds."""
    start, owner = spectral_start(weights), np.zeros(700, dtype=np.int64)
    near = exact_neighbors(cloud, 16)

    def quality(placed):
        e = measure_evidence(cloud, near, placed, owner, seed=0)
        return [e.trustworthiness, e.trustworthiness_wide, e.neighbor_preservation, e.neighbor_preservation_wide]

    module = import_umap()
    a, b = module.find_ab_params(1.0, 0.1)
    theirs = [
        module.simplicial_set_embedding(
            cloud.numpy(), weights, 2, 1.0, a, b, 1.0, 5, 200, boxed(start, s), np.random.RandomState(s), "cosine",
            {}, False, {}, False,
        )[0]
        for s in range(2)
    ]  # fmt: skip
    ours = [optimize(weights, boxed(start, s), curve_of(0.1), n_epochs=200, seed=s, threads=1) for s in range(2)]
    mine, peer = (np.mean([quality(p) for p in pictures], axis=0) for pictures in (ours, theirs))
    assert (mine > peer - 0.015).all(), (mine, peer)


def test_the_start_is_the_dense_eigenvectors(cloud):
    weights = fuzzy_weights(exact_neighbors(cloud[:300], 15))
    dense = weights.toarray().astype(np.float64)
    degree = dense.sum(axis=0)
    tau = degree.mean()
    scale = 1 / np.sqrt(degree + tau)
    vectors = np.linalg.eigh(scale[:, None] * (dense + tau / 300) * scale)[1][:, [-2, -3]]
    found = spectral_start(weights)
    cosines = np.abs((found * vectors).sum(axis=0))
    assert cosines == pytest.approx([1, 1], abs=1e-3)
    assert (np.max(found, axis=0) >= -np.min(found, axis=0)).all()


def test_components_of_a_graph_start_apart():
    """The graph has three components that the plain normalized adjacency cannot tell apart."""
    block = np.ones((30, 30)) - np.eye(30)
    weights = csr_array(np.kron(np.eye(3), block).astype(np.float32))
    found = spectral_start(weights)
    middles = np.array([found[30 * i : 30 * i + 30].mean(axis=0) for i in range(3)])
    spread = max(found[30 * i : 30 * i + 30].std(axis=0).max() for i in range(3))
    gaps = [np.linalg.norm(middles[i] - middles[j]) for i in range(3) for j in range(i)]
    assert min(gaps) > 10 * spread


def test_a_box_is_full_and_coincident_points_are_parted():
    start = boxed(np.zeros((20, 2)), 0)
    assert len(np.unique(start, axis=0)) == 20
    np.testing.assert_allclose([start.min(axis=0), start.max(axis=0)], [[0, 0], [10, 10]])


def test_new_points_start_at_the_weighted_mean_and_leave_the_layout_unchanged(cloud):
    from umap.umap_ import compute_membership_strengths, smooth_knn_dist

    there = (np.random.default_rng(0).random((500, 2)) * 10).astype(np.float32)
    cosines = cloud[500:].numpy().astype(np.float64) @ cloud[:500].numpy().astype(np.float64).T
    index = np.argsort(-cosines, axis=1)[:, :15]
    far = np.maximum(1 - np.take_along_axis(cosines, index, axis=1), 0).astype(np.float32)
    curve = curve_of(0.1)
    still = place(index, far, there, curve, n_epochs=0, seed=0, threads=1)
    sigmas, rhos = smooth_knn_dist(far, 15.0, local_connectivity=0.0)
    w = compute_membership_strengths(index.astype(np.int32), far, sigmas, rhos, bipartite=True)[2].reshape(200, 15)
    expected = (w[:, :, None] * there[index]).sum(axis=1) / w.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(still, expected, atol=1e-4)
    before = there.copy()
    moved, again = (place(index, far, there, curve, n_epochs=20, seed=0, threads=t) for t in (1, 3))
    np.testing.assert_array_equal(there, before)
    np.testing.assert_array_equal(moved, again)
    assert np.abs(moved - still).max() > 0.05
    assert place(index[:0], far[:0], there, curve, n_epochs=20, seed=0, threads=1).shape == (0, 2)
