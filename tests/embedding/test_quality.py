"""Tests of the evidence: an exact and calibrated permutation null, stability under rotation, and shares by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from sae_geometry.embedding.quality import (
    _without_self,
    mixing_score,
    picture_neighbors,
    procrustes_shift,
    shared_share,
)


def random_graph(rng, n, k):
    return np.stack([rng.choice(np.delete(np.arange(n), i), k, replace=False) for i in range(n)])


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1], [0, 1, 2, 2, 1, 0], [0, 0, 0, 0, 1]])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_null_is_that_of_all_permutations(rng, labels, k):
    owner = np.array(labels)
    graph = random_graph(rng, len(owner), k)
    score = mixing_score(graph, owner)
    shares = [(np.array(p)[graph] != np.array(p)[:, None]).mean() for p in permutations(labels)]
    assert score.expected == pytest.approx(np.mean(shares))
    assert score.sd == pytest.approx(np.std(shares))
    assert score.share == (owner[graph] != owner[:, None]).mean()


def test_the_null_is_calibrated(rng):
    """With random labels over the neighbors of a cloud, z has mean 0 and deviation 1, and 5% lie beyond ±1.96."""
    coords = rng.standard_normal((400, 2)).astype(np.float32)
    graph = picture_neighbors(coords, 15)
    owner = np.repeat([0, 1, 2], [200, 150, 50])
    z = np.array([mixing_score(graph, rng.permutation(owner)).z for _ in range(600)])
    assert abs(z.mean()) < 4 / np.sqrt(600)
    assert z.std() == pytest.approx(1, abs=0.1)
    assert 0.02 < (np.abs(z) > 1.96).mean() < 0.085


def test_one_run_has_no_null():
    score = mixing_score(np.array([[1], [2], [3], [0]]), np.zeros(4, dtype=np.int64))
    assert score.share == 0
    assert np.isnan([score.expected, score.sd, score.z]).all()


def test_a_layout_that_is_rotated_mirrored_and_scaled_is_unchanged(rng):
    a = rng.standard_normal((200, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    b = 3 * a @ turn * [1, -1] + [5, 7]
    assert procrustes_shift(a, b) == pytest.approx(0, abs=1e-9)
    nudged = b.copy()
    nudged[0] += 4
    assert procrustes_shift(a, nudged) < 0.1
    assert 1.0 < procrustes_shift(a, rng.permutation(b)) < 1.4


def test_shared_share_by_hand():
    a, b = np.array([[1, 2, 3], [0, 2, 3]]), np.array([[3, 9, 1], [4, 5, 6]])
    assert shared_share(a, b) == pytest.approx(2 / 6)
    assert shared_share(a, a) == 1


def test_without_self_drops_self_or_the_farthest():
    found = np.array([[0, 1, 2], [2, 1, 0], [0, 1, 3], [3, 0, 1]])
    np.testing.assert_array_equal(_without_self(found), [[1, 2], [2, 0], [0, 1], [0, 1]])
