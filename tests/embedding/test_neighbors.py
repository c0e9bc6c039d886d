"""Tests that exact neighbors are the same whether swept at once or part by part."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch

from sae_geometry.embedding.neighbors import exact_neighbors, joint_neighbors
from sae_geometry.kernels import sweep as listing
from sae_geometry.kernels.blocks import DEFAULT_MEMORY
from sae_geometry.kernels.sweep import sweep


def points(rng: np.random.Generator, sizes: list[int], d: int = 9, coarse: bool = False) -> list[torch.Tensor]:
    """Return parts of unit rows; coarse ones have many ties and duplicates."""
    draw = [rng.integers(-1, 2, (n, d)) + np.eye(1, d) * 3 if coarse else rng.standard_normal((n, d)) for n in sizes]
    return [torch.from_numpy(oracles.unit(x)) for x in draw]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("sizes", [[40], [40, 31], [1, 40, 3], [5, 6, 7, 8]])
@pytest.mark.parametrize("k", [2, 7, 16])
def test_parts_together_have_the_neighbors_of_the_whole(rng, sizes, k, coarse):
    parts = points(rng, sizes, coarse=coarse)
    whole = exact_neighbors(torch.cat(parts), k)
    joint, pairs = joint_neighbors(parts, k)
    np.testing.assert_array_equal(joint.indices, whole.indices)
    np.testing.assert_array_equal(joint.distances, whole.distances)
    assert set(pairs) == {(r, s) for r in range(len(sizes)) for s in range(r + 1, len(sizes))}


def test_the_sweeps_between_parts_are_kept(rng):
    a, b = points(rng, [30, 20])
    kept = joint_neighbors([a, b], 5)[1][0, 1]
    again = sweep(a, b, 4)
    assert torch.equal(kept.rows.index, again.rows.index)
    assert kept.cols is not None
    assert again.cols is not None
    assert torch.equal(kept.cols.cosine, again.cols.cosine)


def test_many_threads_are_not_refused(rng, monkeypatch):
    """Each thread needs its own lists, so memory grows with the threads unless a limit is set."""
    asked = []
    monkeypatch.setattr(listing, "cpu_threads", lambda: 512)
    monkeypatch.setattr(listing, "sweep", lambda a, b, k, **how: asked.append(how["memory"]) or sweep(a, b, k))
    parts = points(rng, [30, 20])
    joint_neighbors(parts, 5)
    exact_neighbors(parts[0], 5)
    assert len(asked) == 4
    assert min(asked) > DEFAULT_MEMORY + 512 * 20 * 4 * 16


def test_one_neighbor_is_the_point_itself(rng):
    parts = points(rng, [4, 3])
    found = joint_neighbors(parts, 1)[0]
    np.testing.assert_array_equal(found.indices, np.arange(7)[:, None])
    np.testing.assert_array_equal(found.distances, np.zeros((7, 1)))
    np.testing.assert_array_equal(exact_neighbors(parts[0], 1).indices, np.arange(4)[:, None])


def test_progress_goes_up_to_one(rng):
    said: list[float] = []
    joint_neighbors(points(rng, [50, 60, 70]), 4, said.append)
    assert said == sorted(said)
    assert said[-1] == pytest.approx(1.0)


def test_a_size_that_cannot_be_is_refused(rng):
    with pytest.raises(ValueError, match="must be in 1…7; got 8"):
        joint_neighbors(points(rng, [4, 3]), 8)
