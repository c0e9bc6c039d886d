"""Tests of merging: any split, in any order and even with repeated parts, gives the lists of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_geometry.kernels.settings import changed, current
from sae_geometry.kernels.sweep import sweep
from sae_geometry.kernels.tiles import Tile, cut, halves
from sae_geometry.kernels.topk_merge import Lists, merge_into, no_lists


def naive(candidates: set[tuple[float, int]], k: int) -> Lists:
    """Return the first k by (score descending, index ascending); cosines are the signed scores."""
    best = sorted(candidates, key=lambda c: (-c[0], c[1]))[:k]
    missing = k - len(best)
    score = [s for s, _ in best] + [-np.inf] * missing
    cosine = [sign(i) * s for s, i in best] + [np.nan] * missing
    return np.array([score]), np.array([cosine]), np.array([[i for _, i in best] + [-1] * missing], dtype=np.int64)


def sign(index: int) -> int:
    return 1 - 2 * (index % 2)


def merged(parts: list[Lists], k: int) -> Lists:
    lists = no_lists(1, k)
    for part in parts:
        merge_into(lists, part, 0)
    return lists


def same(x: Lists, y: Lists) -> bool:
    return all(np.array_equal(p, q, equal_nan=p.dtype.kind == "f") for p, q in zip(x, y, strict=True))


# Each index has one score, and few scores are different, so that ties are everywhere.
pools = st.dictionaries(st.integers(0, 30), st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.25000000000000006, 1.0]))


@given(pool=pools, k=st.integers(1, 6), data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_cut_and_order_gives_the_lists_of_the_whole(pool, k, data):
    candidates = {(s, i) for i, s in pool.items()}
    whole = naive(candidates, k)
    owners = {c: data.draw(st.sets(st.integers(0, 3), min_size=1)) for c in sorted(candidates)}  # some in two parts
    parts = [naive({c for c in candidates if part in owners[c]}, k) for part in range(4)]
    order = data.draw(st.permutations(range(4)))
    assert same(merged([parts[p] for p in order], k), whole)
    assert same(merged([parts[p] for p in order] * 2, k), whole), "done twice"
    left = merged([merged(parts[:2], k), merged(parts[2:], k)], k)
    right = merged([parts[0], merged([parts[1], merged(parts[2:], k)], k)], k)
    assert same(left, right)
    assert same(merged([parts[1], parts[0]], k), merged(parts[:2], k))


def test_lists_of_other_lengths_and_rows():
    lists = no_lists(3, 2)
    merge_into(lists, naive({(0.5, 4), (0.5, 2), (0.1, 9)}, 3), 1)
    merge_into(lists, naive({(0.5, 3)}, 1), 1)
    assert lists[2].tolist() == [[-1, -1], [2, 3], [-1, -1]]
    assert np.isnan(lists[1][0]).all()
    assert lists[1][1].tolist() == [0.5, -0.5]


@given(n=st.integers(1, 40), m=st.none() | st.integers(1, 40), pieces=st.integers(1, 12), least=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_every_pair_is_in_exactly_one_tile_however_often_it_is_cut(n, m, pieces, least):
    tiles = cut(n, m, pieces, least=least)
    cut_again = [part for tile in tiles for part in (halves(tile, least) or [tile])]
    for some in (tiles, cut_again):
        times = np.zeros((n, n if m is None else m), dtype=int)
        for tile in some:
            (i, j), (p, q) = tile.rows, tile.cols
            times[i:j, p:q] += np.triu(np.ones((j - i, j - i), dtype=int), 1) if tile.within else 1
        expected = np.triu(np.ones((n, n), dtype=int), 1) if m is None else np.ones((n, m), dtype=int)
        np.testing.assert_array_equal(times, expected)
    if m is not None and n >= pieces * least:
        assert len(tiles) == pieces
    smallest = min(t.rows[1] - t.rows[0] for t in cut_again)
    assert smallest >= min(least, n)


def test_what_cannot_be_cut_is_not():
    assert halves(Tile((0, 7), (0, 7)), least=4) == []
    assert halves(Tile((5, 6), (0, 1))) == []
    assert halves(Tile((0, 2), (0, 9))) == [Tile((0, 2), (0, 4)), Tile((0, 2), (4, 9))]
    assert Tile((0, 4), (0, 4), within=True).pairs == 8


def test_sweeps_are_offered_to_the_runner_while_it_lasts():
    offered = []

    def runner(task, screen):
        offered.append((task.k, screen))

    with changed(runner=runner):
        sweep(torch.eye(3), k=2, screen="cpu")
        sweep(torch.eye(3), blocks=(1, 1))  # A sweep with given blocks, or an audited one, must run in this process.
        sweep(torch.eye(3), audit=True)
        with pytest.raises(ValueError, match="k must be in"):
            sweep(torch.eye(3), k=0)
        with changed(runner=None):
            sweep(torch.eye(3))
    assert offered == [(2, "cpu")]
    assert current().runner is None
