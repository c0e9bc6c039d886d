"""Tests of feature splitting: planted children, absorption and novelty, and the pursuit against its definition."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.comparisons.splitting import sparse_combinations


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def named(rows, name):
    return sg.Dictionary.from_decoder(rows.astype(np.float32), latent_axis=0, name=name, model="m", hook_point="h")


def plant(seed):
    """Plant 60 narrow latents in 128 dimensions (20 split in two, 20 copied with noise, 20 gone) and 50 wide ones."""
    rng = np.random.default_rng(seed)
    narrow = unit(rng.standard_normal((60, 128)))
    delta = 0.6 * unit(rng.standard_normal((20, 128)))
    delta -= (delta * narrow[:20]).sum(1, keepdims=True) * narrow[:20]
    wide = np.concatenate(
        [
            unit(narrow[:20] + delta),
            unit(narrow[:20] - delta),
            unit(narrow[20:40] + 0.02 * rng.standard_normal((20, 128))),
            unit(rng.standard_normal((50, 128))),
        ]
    )
    return narrow, wide, rng.permutation(len(wide))


@pytest.fixture(scope="module")
def planted():
    narrow, wide, order = plant(2)
    return narrow, wide, order, sg.split(named(narrow, "narrow"), named(wide[order], "wide"))


def test_of_the_children_found_at_most_the_nominal_share_is_false():
    """The mean false discovery proportion must be below the nominal rate; single draws have 0 to 12%."""
    shares = []
    for seed in range(8):
        narrow, wide, _ = plant(seed)
        s = sg.split(named(narrow, "narrow"), named(wide, "wide"), n_terms=1)
        assert s.found[:60].all()
        shares.append(s.found[60:].sum() / s.found.sum())
    assert np.mean(shares) <= 0.07


def test_planted_children_are_recovered(planted):
    _, _, order, s = planted
    where = np.argsort(order)  # wide row → its latent id after shuffling
    for parent in range(20):
        assert {where[parent], where[20 + parent]} <= set(s.children(parent))
    false = sum(len(s.children(parent)) - 2 for parent in range(20))
    assert false <= 0.05 * int(s.found.sum())  # the false discovery proportion
    for parent in range(20, 40):
        assert where[20 + parent] in s.children(parent)
    new = where[60:]
    assert s.found[new].mean() <= 0.06
    assert s.found[where[:60]].all()
    assert s.n_novel >= 47
    assert (s.n_children[40:] == 0).mean() > 0.9


def test_two_children_explain_their_parent_and_noise_does_not(planted):
    s = planted[3]
    np.testing.assert_allclose(s.combination.explained[:20, 1], 1, atol=1e-6)
    np.testing.assert_allclose(s.combination.coefficient[:20, 0], s.combination.coefficient[:20, 1], rtol=1e-3)
    assert (s.combination.index[:20, 2] == -1).all()  # There was nothing left to explain.
    gone = s.combination.explained[40:, -1].mean()
    assert gone == pytest.approx(s.explained_by_chance[40:, -1].mean(), abs=0.06)
    assert s.combination.explained[20:40, 0].mean() > 0.9


def test_absorption_is_counted():
    rng = np.random.default_rng(1)
    narrow = unit(rng.standard_normal((40, 96)))
    wide = narrow.copy()
    wide[0] = unit(narrow[0] + 0.8 * unit(rng.standard_normal(96)))
    wide[1] = unit(narrow[1] + 0.8 * narrow[0])  # The child of 1 absorbs part of 0.
    wide = np.concatenate([wide, unit(rng.standard_normal((20, 96)))])
    s = sg.split(named(narrow, "n"), named(wide, "w"))
    assert s.n_absorbing[0] == 1
    assert s.n_absorbing[2:].sum() <= 3


def test_the_pursuit_is_its_definition(rng):
    """Compare with ten readable lines: greedy choice over all atoms, then non-negative least squares."""
    parents, atoms = unit(rng.standard_normal((12, 10))), unit(rng.standard_normal((30, 10)))
    parents, atoms = parents.astype(np.float32), atoms.astype(np.float32)
    found = sparse_combinations(torch.from_numpy(parents), torch.from_numpy(atoms), 4)
    for i, p in enumerate(parents.astype(float)):
        residual, taken = p.copy(), []
        for t in range(4):
            best = int(np.argmax(atoms.astype(float) @ residual))
            if best in taken or atoms[best] @ residual <= 1e-6:
                break
            taken.append(best)
            c, left = nnls(atoms[taken].astype(float).T, p)
            residual = p - c @ atoms[taken]
            assert found.index[i, : t + 1].tolist() == taken
            assert found.explained[i, t] == pytest.approx(1 - left**2, abs=1e-9)
    assert (found.coefficient >= 0).all()
    assert (np.diff(found.explained, axis=1) >= -1e-12).all()


def test_chance_explains_what_a_random_dictionary_explains():
    rng = np.random.default_rng(0)
    s = sg.split(named(rng.standard_normal((80, 48)), "n"), named(rng.standard_normal((300, 48)), "w"))
    np.testing.assert_allclose(s.combination.explained.mean(0), s.explained_by_chance.mean(0), atol=0.02)
    assert s.found.mean() < 0.05


def test_the_demo_splits(demo):
    s = sg.split(demo["local-narrow-seed0"], demo["local-seed0"])
    assert 0.4 < s.found.mean() < 0.9
    # Every child must be above the largest expected cosine of isotropic directions.
    assert s.threshold > sg.expected_max_cosine(512, 576)
    assert (s.combination.explained.mean(0) > s.explained_by_chance.mean(0) + 0.1).all()
    text = " ".join(repr(s).split())
    for part in ("512 latents", "novel", "by chance", "false discoveries"):
        assert part in text


def test_tables_and_summary(planted, tmp_path):
    s = planted[3]
    children, parents = s.to_pandas(), s.parents_table()
    assert len(children) == 110
    assert len(parents) == 60
    assert (children["role"] == "child").sum() == s.found.sum() == parents["n_children"].sum()
    assert children.loc[children["role"] == "novel", "n_siblings"].eq(0).all()
    folder = sg.save(s, tmp_path / "out", formats=["png"])
    assert sorted(p.name for p in folder.iterdir()) == [
        "figures", "parents.parquet", "report.html", "split.parquet", "summary.json",
    ]  # fmt: skip
    tables, summary = sg.read(folder)
    table = tables["split"]
    assert list(table.columns) == list(children.columns)
    assert sum(summary["narrow_latents_with_this_many_children"].values()) == 60
    assert summary["n_children"] + summary["n_novel"] == 110
    assert summary["inputs"]["narrow"]["name"] == "narrow"


def test_one_latent_and_one_term():
    s = sg.split(np.array([[1.0, 0, 0]]), np.array([[1.0, 0, 0], [0, 1, 0]]), n_terms=1)
    assert s.combination.explained.tolist() == [[1.0]]
    assert not s.found.any()  # One win among so few latents is not significant.
    assert "novel" in repr(s)
    plt.close(sg.plots.children_bars(s).figure)
    plt.close(sg.plots.explained_ecdf(s).figure)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_terms": 0}, "at least 1; got 0"),
        ({"false_discovery_rate": 1.5}, "between 0 and 1; got 1.5"),
    ],
)
def test_wrong_use_is_refused(toy_pair, arguments, said):
    with pytest.raises(ValueError, match=said):
        sg.split(toy_pair[1], toy_pair[0], **arguments)


def test_the_wrong_order_is_reported(toy_pair):
    with pytest.raises(ValueError, match="swap the two"):
        sg.split(*toy_pair)


def test_a_latent_that_is_not_there(planted):
    with pytest.raises(ValueError, match="no latent 999"):
        planted[3].children(999)


@pytest.mark.usefixtures("blank_figures")
def test_the_command(tmp_path):
    out = tmp_path / "out"
    arguments = ["split", "demo:local-narrow-seed0", "demo:local-seed0", "-o", str(out), "--json", "-q", "--terms", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["explained"]) == 2
    assert (out / "figures" / "splitting.png").exists()
    assert (out / "parents.parquet").exists()


def test_the_command_in_the_wrong_order(tmp_path):
    result = CliRunner().invoke(
        app, ["split", "demo:local-seed0", "demo:local-narrow-seed0", "-o", str(tmp_path / "x")]
    )
    assert result.exit_code == 2
    assert not (tmp_path / "x").exists()
