"""Tests of consensus groups: complete linkage against its definition, planted groups, and a dictionary that loads."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.comparisons.consensus import consensus
from sae_geometry.io.atomic_folder import umask


def run(rows, name, **more):
    return sg.Dictionary.from_decoder(
        rows.astype(np.float32), latent_axis=0, name=name, model="m", hook_point="h", **more
    )


def one_to_one(rng, sizes, links):
    """Return random partial one-to-one matchings between all pairs of runs, as [L, N] partners and similarities."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    partner = np.full((starts[-1], len(sizes)), -1, dtype=np.int64)
    similarity = np.full(partner.shape, np.nan)
    for i, j in itertools.combinations(range(len(sizes)), 2):
        k = min(links, sizes[i], sizes[j])
        x, y = rng.permutation(sizes[i])[:k], rng.permutation(sizes[j])[:k]
        s = rng.choice(np.linspace(0.5, 1, 6), k)  # ties
        partner[starts[i] + x, j], partner[starts[j] + y, i] = y, x
        similarity[starts[i] + x, j] = similarity[starts[j] + y, i] = s
    return partner, similarity


def by_definition(sizes, partner, similarity, threshold):
    """Group sets of (run, row), best link first: merge two if all cross pairs are links and no run occurs twice."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    links = {}
    for i in range(len(sizes)):
        for x in range(sizes[i]):
            for j in range(i + 1, len(sizes)):
                y, s = partner[starts[i] + x, j], similarity[starts[i] + x, j]
                if y >= 0 and s > threshold:
                    links[frozenset([(i, x), (j, int(y))])] = s
    group = {(i, x): frozenset([(i, x)]) for i in range(len(sizes)) for x in range(sizes[i])}
    for link in sorted(links, key=lambda e: (-links[e], sorted(e))):
        (p, q) = sorted(link)
        g, h = group[p], group[q]
        disjoint = not {r for r, _ in g} & {r for r, _ in h}
        if g != h and disjoint and all(frozenset([a, b]) in links for a in g for b in h):
            for member in g | h:
                group[member] = g | h
    return {g for g in group.values() if len(g) > 1}


@pytest.mark.parametrize("seed", range(12))
def test_groups_are_their_definition(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, rng.integers(2, 6)).tolist()
    partner, similarity = one_to_one(rng, sizes, 6)
    runs = [run(rng.standard_normal((n, 4)), f"r{k}") for k, n in enumerate(sizes)]
    c = consensus(runs, partner, similarity, threshold=0.55)
    found = {frozenset((r, int(x)) for r, x in enumerate(row) if x >= 0) for row in c.members}
    assert found == by_definition(sizes, partner, similarity, 0.55)
    assert c.incidence.sum() == len(c.members) + sum(map(len, c.orphans))
    assert (c.incidence * np.arange(1, len(sizes) + 1)).sum() == sum(sizes)


@pytest.fixture(scope="module")
def planted():
    """Compare four runs that share 20 latents; the first three share 10 more, and the first two another 5."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((35, 64))
    runs = []
    for k, shared in enumerate((35, 35, 30, 20)):
        own = rng.standard_normal((15, 64))
        rows = np.concatenate([common[:shared] + 0.05 * rng.standard_normal((shared, 64)), own])
        order = rng.permutation(len(rows))
        encoder = rows[order] * 2
        runs.append(run(rows[order], f"r{k}", encoder=encoder))
    return sg.seeds(runs)


@pytest.fixture(scope="module")
def groups(planted):
    """Group at the threshold alone, because cosines within each run are below 0.5."""
    return consensus(planted.runs, *planted._partners, threshold=planted.threshold)


def test_planted_groups_are_recovered_exactly(groups):
    c = groups
    assert np.bincount(c.occupancy, minlength=5).tolist() == [0, 0, 5, 10, 20]
    assert [len(o) for o in c.orphans] == [15, 15, 15, 15]
    assert c.incidence.tolist() == [60, 5, 10, 20]
    assert (c.lowest <= c.similarity + 1e-12).all()
    assert c.lowest.min() > 0.9


def test_few_latents_are_linked_above_all_of_their_own_and_hardly_by_chance(planted, groups):
    """With 50 latents per run there are under a hundred wins, so the level is the largest cosine within either run."""
    c = planted.consensus
    own = [np.sort((x := d.directions.numpy()) @ x.T, axis=1)[:, -2].max() for d in planted.runs]
    assert c.level[0, 1] == pytest.approx(max(own[:2]), abs=1e-6)
    assert np.nanmax(c.level) <= max(own) + 1e-6  # The larger dictionary has fewer decoys of its own.
    found, planted_groups = ({tuple(row) for row in g.members.tolist()} for g in (c, groups))
    assert planted_groups <= found
    assert len(found) <= len(planted_groups) + 2  # This allows two false groups among 60 orphans.


def test_a_consensus_is_a_dictionary_that_loads(planted, groups, tmp_path):
    path = groups.save(tmp_path / "consensus.safetensors")
    d = sg.load(str(path))
    assert d.layout == "sae_geometry_consensus"
    assert (d.n_latents, d.d_in) == (35, 64)
    assert (d.model, d.hook_point) == ("m", "h")
    assert d.encoder_directions is not None
    back = sg.compare(d, planted.runs[0], allow_mismatch=True)
    assert back.a_to_b.mmcs > 0.95
    assert list(tmp_path.iterdir()) == [path]
    assert sg.load(str(groups.save(tmp_path / "all.safetensors", min_runs=4))).n_latents == 20


def test_a_place_under_several_names_is_written(groups, tmp_path):
    names = [("gpt2", "blocks.6.hook_resid_pre"), ("openai-community/gpt2", "transformer.h.5")]
    runs = tuple(replace(d, model=names[i % 2][0], hook_point=names[i % 2][1]) for i, d in enumerate(groups.runs))
    d = sg.load(str(replace(groups, runs=runs).save(tmp_path / "one.safetensors")))
    assert (d.model, d.hook_point) == names[0]
    apart = (replace(runs[0], hook_point="transformer.h.6"), *runs[1:])
    d = sg.load(str(replace(groups, runs=apart).save(tmp_path / "two.safetensors")))
    assert (d.model, d.hook_point) == ("gpt2", None)


def test_members_are_original_ids(planted, groups):
    c = groups
    frame = c.to_pandas()
    group = frame.iloc[0]
    rows = [d.directions[d.latent_ids.tolist().index(group[d.name])] for d in planted.runs]
    cos = [float(a @ b) for a, b in itertools.combinations(rows, 2)]
    assert group["mean_similarity"] == pytest.approx(np.mean(cos), abs=1e-6)
    assert len(c.orphans_table()) == 60


def test_wrong_use_is_refused(planted, tmp_path):
    with pytest.raises(ValueError, match=r"\.safetensors file; got 'x.pt'"):
        planted.consensus.save(tmp_path / "x.pt")
    with pytest.raises(ValueError, match="spans 5 runs"):
        planted.consensus.save(tmp_path / "x.safetensors", min_runs=5)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="partner and similarity must have shape"):
        consensus(planted.runs, np.zeros((3, 4), dtype=np.int64), np.zeros((3, 4)), threshold=0.5)


def test_a_consensus_is_saved_for_all_to_read_and_under_any_name(planted, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    path = planted.consensus.save(folder / "consensus.safetensors")
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    assert [p.name for p in folder.iterdir()] == ["consensus.safetensors"]
