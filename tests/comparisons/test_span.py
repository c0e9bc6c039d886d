"""Tests of spans: planted combinations, the null for noise, and angles against scipy."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.comparisons.span import _angle_cosines, _leading_subspace, explained_by_nearest


def run(rows, name):
    return sg.Dictionary.from_decoder(rows.astype(np.float32), latent_axis=0, name=name, model="m", hook_point="h")


@pytest.fixture(scope="module")
def planted():
    """Plant 60 shared latents, 20 sums of two of B's latents, and 40 that B lacks."""
    rng = np.random.default_rng(0)
    b = rng.standard_normal((120, 160))
    sums = b[60:80] / np.linalg.norm(b[60:80], axis=1, keepdims=True)
    sums = sums - b[80:100] / np.linalg.norm(b[80:100], axis=1, keepdims=True)
    a = np.concatenate([b[:60], sums, rng.standard_normal((40, 160))])
    return sg.span(run(a, "a"), run(b, "b"), threshold=0.9)


def test_planted_sums_lie_in_the_span(planted):
    assert planted.unmatched.tolist() == list(range(60, 120))
    np.testing.assert_allclose(planted.explained[:20, 1], 1, atol=1e-6)
    assert (planted.explained[:20, 0] < 0.62).all()


def test_what_b_does_not_have_is_explained_as_chance_explains(planted):
    noise = planted.explained[20:].mean(axis=0)
    np.testing.assert_allclose(noise, planted.explained_by_chance[20:].mean(axis=0), rtol=0.15)


def test_by_definition(rng):
    x, y = (
        v / np.linalg.norm(v, axis=1, keepdims=True)
        for v in (rng.standard_normal((9, 12)), rng.standard_normal((20, 12)))
    )
    found = explained_by_nearest(x.astype(np.float32), y.astype(np.float32), (1, 3, 12))
    for i in range(9):
        near = np.argsort(-np.abs(y @ x[i]))
        for at, k in enumerate((1, 3, 12)):
            fit = np.linalg.lstsq(y[near[:k]].T, x[i], rcond=None)[0] @ y[near[:k]]
            assert found[i, at] == pytest.approx(1 - np.sum((x[i] - fit) ** 2), abs=1e-5)
    np.testing.assert_allclose(found[:, 2], 1, atol=1e-6)


@pytest.mark.parametrize("d", [12, 90])
def test_angles_are_scipys(d, rng):
    x, y = rng.standard_normal((30, d)), rng.standard_normal((40, d))
    bases = [np.linalg.svd(v, full_matrices=False)[2][:4].T for v in (x, y)]
    found = _angle_cosines(_leading_subspace(x, 4), _leading_subspace(y, 9)[:4])
    np.testing.assert_allclose(np.sort(np.arccos(found)), np.sort(subspace_angles(*bases)), atol=1e-6)
    same = _angle_cosines(_leading_subspace(x, 3), _leading_subspace(x @ np.diag(np.ones(d)), 3))
    np.testing.assert_allclose(same, 1, atol=1e-9)


def test_the_demo_and_its_outputs(demo, tmp_path):
    s = sg.span(demo["local-narrow-seed0"], demo["local-seed0"], n_nearest=(1, 4, 16))
    assert (np.diff(s.explained, axis=1) >= -1e-12).all()
    assert s.overlap.shape == (len(s.ranks),)
    folder = sg.save(s, tmp_path / "out", formats=["png"])
    tables, summary = sg.read(folder)
    table = next(iter(tables.values()))
    assert len(table) == summary["n_unmatched"] == len(s.unmatched)
    assert summary["one_to_one_matching"] == "optimal"
    assert len(summary["principal_angles_degrees"]) == s.ranks[-1]
    plt.close(sg.plots.span_curve(s).figure)
    for part in ("by chance", "isotropic", "k nearest"):
        assert part in repr(s)


def test_where_everything_is_matched(demo):
    s = sg.span(demo["local-narrow-seed0"], demo["local-narrow-seed0"].renamed("again"))
    assert len(s.unmatched) == 0
    assert s.ranks == ()
    assert s.summary()["explained"] is None
    assert "the 0 of 512" in repr(s)


@pytest.mark.parametrize("ks", [(), (0, 2), (4, 2), (1, 65), (2, 2)])
def test_wrong_numbers_are_refused(toy_pair, ks):
    with pytest.raises(ValueError, match="ascending integers from 1 to 64"):
        sg.span(*toy_pair, n_nearest=ks)


def test_a_threshold_is_a_cosine(toy_pair):
    with pytest.raises(ValueError, match="in −1…1; got 3"):
        sg.span(*toy_pair, threshold=3.0)


@pytest.mark.usefixtures("blank_figures")
def test_the_command(tmp_path):
    out = tmp_path / "out"
    sides = ["demo:local-narrow-seed0", "demo:local-seed0"]
    result = CliRunner().invoke(app, ["span", *sides, "-o", str(out), "--json", "-q", "--format", "png"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_nearest"] == [1, 2, 4, 8, 16, 32]
    assert (out / "span.parquet").exists()
