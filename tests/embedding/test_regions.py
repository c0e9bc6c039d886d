"""Tests of regions: planted blobs are recovered, named by size, counted by run, and tested against the null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from sae_geometry.embedding.region_file import Shape
from sae_geometry.embedding.regions import find_regions, given_regions, letters

CENTERS = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0], [14.0, 14.0]])
SIZES = [300, 200, 120, 80]


@pytest.fixture
def blobs(rng):
    """Return four round blobs and some scatter: the first mostly run 0, the second all run 1, the others even."""
    coords = np.concatenate([c + rng.standard_normal((n, 2)) for c, n in zip(CENTERS, SIZES, strict=True)])
    coords = np.concatenate([coords, rng.uniform(-10, 25, (40, 2))]).astype(np.float32)
    chance = np.repeat([0.1, 1.0, 0.5, 0.5, 0.5], [*SIZES, 40])
    owner = (rng.random(740) < chance).astype(np.int64)
    return coords, owner, np.repeat([0, 1, 2, 3, -1], [*SIZES, 40])


def test_planted_blobs_are_recovered(blobs):
    coords, owner, truth = blobs
    found = find_regions(coords, owner, ["a", "b"], min_size=70)
    assert [r.letter for r in found.regions] == ["A", "B", "C", "D"]
    for blob, region in enumerate(found.regions):
        inside = truth[region.members]
        assert (inside == blob).mean() > 0.95
        assert (inside == blob).sum() > 0.8 * SIZES[blob]
        assert np.hypot(*(region.center - CENTERS[blob])) < 0.5
        assert all(found.letters[i] == region.letter for i in region.members)
    assert sum(r.size for r in found.regions) == sum(letter is not None for letter in found.letters)
    assert found.share_inside == pytest.approx(sum(r.size for r in found.regions) / 740)


def test_counts_shares_and_verdicts(blobs):
    coords, owner, _ = blobs
    found = find_regions(coords, owner, ["a", "b"], min_size=70)
    assert [r.verdict for r in found.regions] == ["mostly a", "mostly b", "mixed", "mixed"]
    totals = np.bincount(owner)
    for region in found.regions:
        counts = np.bincount(owner[region.members], minlength=2)
        np.testing.assert_array_equal(region.counts, counts)
        rate = counts / totals
        np.testing.assert_allclose(region.shares, rate / rate.sum())
        for r in (0, 1):
            truth = binomtest(int(counts[r]), int(counts.sum()), totals[r] / totals.sum()).pvalue
            assert region.p_values[r] == pytest.approx(truth)
        assert (region.q_values >= region.p_values).all()


def test_random_labels_are_called_mixed():
    """With random labels, the share of layouts with a false "mostly" must stay below the controlled rate."""
    rng = np.random.default_rng(0)
    coords = np.concatenate([c + rng.standard_normal((60, 2)) for c in CENTERS * 2]).astype(np.float32)
    verdicts = [
        [r.verdict for r in find_regions(coords, rng.integers(0, 2, 240), ["a", "b"], min_size=20).regions]
        for _ in range(60)
    ]
    assert all(len(v) == 4 for v in verdicts)
    assert sum(any(w != "mixed" for w in v) for v in verdicts) <= 3


def test_shares_allow_for_unequal_runs(rng):
    """A run with nine tenths of all points has nine tenths of a mixed region too, which must not be called its own."""
    coords = np.concatenate([c + rng.standard_normal((200, 2)) for c in CENTERS]).astype(np.float32)
    owner = (rng.random(800) < 0.9).astype(np.int64)
    found = find_regions(coords, owner, ["small", "large"], min_size=50)
    assert {r.verdict for r in found.regions} == {"mixed"}
    assert all(abs(r.shares[0] - 0.5) < 0.2 for r in found.regions)


def test_three_runs_and_one(blobs, rng):
    coords, owner, truth = blobs
    three = np.where(truth == 2, 2, owner)
    found = find_regions(coords, three, ["a", "b", "c"], min_size=70)
    assert found.regions[2].verdict == "mostly c"
    alone = find_regions(coords, np.zeros(740, dtype=np.int64), ["a"], min_size=70)
    assert [r.verdict for r in alone.regions] == [""] * 4
    assert all((r.p_values == 1).all() for r in alone.regions)


def test_the_order_of_points_matters_to_ties_at_most(blobs, rng):
    coords, owner, _ = blobs
    order = rng.permutation(740)
    one = find_regions(coords, owner, ["a", "b"], min_size=70)
    two = find_regions(coords[order], owner[order], ["a", "b"], min_size=70)
    assert np.mean(one.letters[order] == two.letters) > 0.99


def test_coincident_points_and_too_few(rng):
    same = np.zeros((50, 2), dtype=np.float32)
    owner = np.zeros(50, dtype=np.int64)
    assert len(find_regions(same, owner, ["a"]).regions) <= 1
    twice = np.repeat(np.concatenate([same[:30], same[:30] + 9]), 2, axis=0)
    found = find_regions(twice, np.zeros(120, dtype=np.int64), ["a"], min_size=20)
    assert [r.size for r in found.regions] == [60, 60]
    none = find_regions(same[:5], owner[:5], ["a"])
    assert len(none) == 0
    assert "no regions" in none.table()
    with pytest.raises(ValueError, match="min_size must be at least 2; got 1"):
        find_regions(same, owner, ["a"], min_size=1)


def test_boxes_given_by_hand(blobs):
    coords, owner, _ = blobs
    square = ((9.0, -3.0), (15.0, -3.0), (15.0, 3.0), (9.0, 3.0))
    away = tuple((x + 500, y) for x, y in square)
    triangle = ((-6.0, -6.0), (30.0, -6.0), (-6.0, 30.0))
    shapes = [Shape("Q", square), Shape("R", triangle), Shape("S", away)]
    found = given_regions(coords, owner, ["a", "b"], shapes=shapes)
    q, r, s = found.regions
    inside = (np.abs(coords - [12, 0]) < 3).all(axis=1)
    np.testing.assert_array_equal(q.members, np.flatnonzero(inside))
    below = (coords.sum(axis=1) < 24) & (coords > -6).all(axis=1) & ~inside
    np.testing.assert_array_equal(r.members, np.flatnonzero(below))
    assert q.verdict == "mostly b"
    assert s.size == 0
    assert s.verdict == "mixed"
    assert s.center == pytest.approx((512.0, 0.0))
    assert found.regions[0].outline == square
    assert found.letters[np.flatnonzero(inside)[0]] == "Q"


def test_letters_go_on():
    assert [letters(i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == ["A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]


def test_the_table_reads(blobs):
    coords, owner, _ = blobs
    found = find_regions(coords, owner, ["a", "b"], min_size=70)
    text = found.table()
    assert text.splitlines()[0].startswith("4 regions (HDBSCAN on the picture, at least 70 latents) with")
    assert "mostly a" in text
    frame = found.to_pandas()
    assert list(frame["region"]) == ["A", "B", "C", "D"]
    assert frame["count:a"].sum() + frame["count:b"].sum() == frame["size"].sum()
