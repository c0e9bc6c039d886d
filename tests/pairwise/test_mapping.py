"""Tests of linear maps: orthogonal maps change nothing, zeroed latents are named, and every output names the map."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracles import unit
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app


def make(rows, name, **space):
    return sg.Dictionary.from_decoder(np.asarray(rows), latent_axis=0, name=name, **space)


@pytest.fixture
def pair(rng):
    a = rng.standard_normal((80, 16))
    return make(a, "a"), make(a[rng.permutation(80)][:60] + 0.4 * rng.standard_normal((60, 16)), "b")


def test_an_orthogonal_map_leaves_results_equal(pair, rng):
    q = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    plain, turned = sg.compare(*pair, "optimal"), sg.compare(*(sg.mapped(d, q, name="q") for d in pair), "optimal")
    np.testing.assert_allclose(turned.a_to_b.cosine, plain.a_to_b.cosine, atol=1e-6)
    np.testing.assert_array_equal(turned.a_to_b.partner, plain.a_to_b.partner)
    np.testing.assert_allclose(turned.nearest_b_to_a.cosine, plain.nearest_b_to_a.cosine, atol=1e-6)
    table = turned.to_pandas()
    np.testing.assert_allclose(table["plain_cosine"], plain.to_pandas()["cosine"], atol=1e-6)


def test_it_is_its_definition(pair, rng):
    m = rng.standard_normal((16, 5))
    d = sg.mapped(pair[0], m, name="m")
    image = pair[0].directions.double().numpy() @ m
    np.testing.assert_allclose(d.directions.numpy(), unit(image), atol=1e-6)
    np.testing.assert_allclose(
        d.decoder_norms, pair[0].decoder_norms.numpy() * np.linalg.norm(image, axis=1), rtol=1e-5
    )
    assert d.unmapped is pair[0]
    assert d.encoder_directions is None
    assert d.d_in == 5


def test_latents_sent_to_zero_are_named():
    d = make(np.eye(6), "d").select([5, 2, 3])
    m = np.diag([1.0, 1, 0, 1, 1, 0])
    kept = sg.mapped(d, m, name="projection")
    assert kept.latent_ids.tolist() == [3]
    assert "2 latents sent to zero and left out: 5, 2" in kept.notes[-1]
    assert "sent to zero and left out: 5, 2" in " ".join(repr(sg.compare(kept, make(np.eye(6), "e"), turns=0)).split())
    with pytest.raises(ValueError, match="sends every latent of 'd' to zero"):
        sg.mapped(d.select([2]), m, name="projection")


@pytest.mark.usefixtures("blank_figures")
def test_the_map_is_named_and_hashed_everywhere(pair, rng, tmp_path):
    m = rng.standard_normal((16, 16))
    both = [sg.mapped(d, m, name="whitening") for d in pair]
    digest = both[0].metadata["map_sha256"]
    assert digest == both[1].metadata["map_sha256"] != sg.mapped(pair[0], m.T, name="whitening").metadata["map_sha256"]
    c = sg.compare(*both)
    assert f"mapped by 'whitening' (sha256 {digest[:16]}," in repr(c)
    assert repr(c).count("mapped by") == 2  # once per side
    assert "before the map, the nearest pairs have mean cosines" in repr(c)
    tables, summary = sg.read(sg.save(c, tmp_path / "out", formats=["png"]))
    table = tables["matches"]
    assert summary["inputs"]["a"]["metadata"]["map"] == "whitening"
    assert summary["inputs"]["b"]["metadata"]["map_sha256"] == digest
    x, y = (dict(zip(d.latent_ids.tolist(), d.directions.double().numpy(), strict=True)) for d in pair)
    rows = table[table["direction"] == "a_to_b"]
    expected = [x[i] @ y[j] for i, j in zip(rows["latent_id"], rows["partner_id"], strict=True)]
    np.testing.assert_allclose(rows["plain_cosine"], expected, atol=1e-6)
    assert "plain_cosine" not in sg.compare(*pair).to_pandas()


def test_there_is_no_plain_cosine_between_two_spaces(rng):
    a = make(rng.standard_normal((30, 8)), "a", model="m", hook_point="blocks.0.hook_resid_post")
    b = make(rng.standard_normal((30, 8)), "b", model="m", hook_point="blocks.3.hook_resid_post")
    c = sg.compare(sg.mapped(a, rng.standard_normal((8, 8)), name="jacobian"), b)
    assert "plain_cosine" not in c.to_pandas()
    assert "before the map" not in repr(c)


def test_p_values_after_an_anisotropic_map_are_uniform(rng):
    """Map unrelated vectors like the dictionary: the turned control must follow the mapped spectrum."""
    m = np.linalg.qr(rng.standard_normal((24, 24)))[0] * (1 / np.arange(1, 25)) @ rng.standard_normal((24, 24))
    d = sg.mapped(make(rng.standard_normal((200, 24)), "d"), m, name="m")
    vectors = sg.mapped(make(rng.standard_normal((150, 24)), "v"), m, name="m")
    p = sg.nearest(vectors, d, 1, turns=49).p_value[:, 0]
    assert abs(p.mean() - 0.51) < 3 * 0.289 / np.sqrt(150)
    for level in (0.06, 0.2, 0.5, 0.8):
        assert abs((p <= level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / 150)


def test_significance_after_an_anisotropic_map_finds_nothing_in_unrelated_dictionaries(rng):
    m = np.diag(1 / np.arange(1, 33)) @ rng.standard_normal((32, 32))
    a, b = (sg.mapped(make(rng.standard_normal((300, 32)), name), m, name="m") for name in "ab")
    assert sg.compare(a, b).a_to_b.significant_fraction < 0.03


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.ones((16, 3, 2)), r"real numbers of shape \[16, d_out\]"),
        (np.ones((3, 16)), "give its transpose"),
        (np.full((16, 16), np.nan), "NaN or infinite"),
    ],
)
def test_what_is_not_a_map_is_refused(pair, matrix, said):
    with pytest.raises(ValueError, match=said):
        sg.mapped(pair[0], matrix, name="m")


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(("side", "mapped_sides"), [(None, "ab"), ("first", "a")])
def test_the_option_maps_what_lives_in_one_space(tmp_path, rng, monkeypatch, side, mapped_sides):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        np.save(f"{name}.npy", rng.standard_normal((30, 8)))
    np.save("white.npy", rng.standard_normal((8, 8)))
    arguments = ["compare", "a.npy", "b.npy", "--map", "white.npy", "-o", "out", "--json", "-q", "--format", "png"]
    result = CliRunner().invoke(app, [*arguments, *([] if side is None else ["--map-side", side])])
    assert result.exit_code == 0, result.output
    inputs = json.loads(result.stdout)["inputs"]
    assert "".join(s for s in "ab" if inputs[s]["metadata"].get("map") == "white") == mapped_sides


def test_nearest_is_mapped_too(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, v, m = rng.standard_normal((30, 8)), rng.standard_normal((2, 8)), rng.standard_normal((8, 5))
    for name, array in {"d": rows, "v": v, "m": m}.items():
        np.save(f"{name}.npy", array)
    arguments = ["nearest", "v.npy", "d.npy", "--map", "m.npy", "-k", "4", "--turns", "9", "-o", "out", "-q"]
    assert CliRunner().invoke(app, [*arguments, "--format", "png"]).exit_code == 0
    tables, summary = sg.read("out")
    table = tables["nearest"]
    cosines = unit(v @ m) @ unit(rows @ m).T
    order = np.argsort(-cosines, axis=1)[:, :4]
    np.testing.assert_array_equal(table["latent_id"], order.ravel())
    np.testing.assert_allclose(
        table["plain_cosine"], np.take_along_axis(unit(v) @ unit(rows).T, order, 1).ravel(), atol=1e-6
    )
    assert {d["metadata"]["map"] for d in (summary["inputs"]["vectors"], *summary["inputs"]["searched"])} == {"m"}


def test_a_side_without_a_map_is_refused(tmp_path):
    arguments = ["compare", "demo:local-seed0", "demo:local-seed1", "--map-side", "first", "-o", str(tmp_path / "x")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "add --map FILE" in result.stderr
