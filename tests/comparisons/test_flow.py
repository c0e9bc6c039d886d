"""Tests of features through layers: planted births, deaths, splits, merges and rotations are counted exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from oracles import unit
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.comparisons.flow_step import Step
from sae_geometry.pairwise.label_columns import labeled_table
from sae_geometry.sources import checkpoints

DEGREES = 20.0


def layer(rows, at, **how):
    where = {"model": "m", "hook_point": f"blocks.{at}.hook_resid_post"} | how
    return sg.Dictionary.from_decoder(rows.astype(np.float32), latent_axis=0, name=f"L{at}", **where)


def turned(rng, rows):
    """Rotate each row by 20 degrees in its own random direction."""
    other = rng.standard_normal(rows.shape)
    other = unit(other - (other * rows).sum(axis=1, keepdims=True) * rows)
    return np.cos(np.radians(DEGREES)) * rows + np.sin(np.radians(DEGREES)) * other


def planted(seed, n=160, d=128, layers=4):
    """Return layers whose latents die, split, merge in pairs, are born or rotate, and the number of each per step."""
    rng = np.random.default_rng(seed)
    rows, truth, survivors = [unit(rng.standard_normal((n, d)))], [], np.arange(n)
    left = [n]
    for at in range(1, layers):
        last = rows[-1]
        n_die, n_split, n_merge, n_born = 9 + at, 5 + at, 4, 14 - at
        cuts = np.cumsum([n_die, n_split, n_merge, n_merge])
        _, split, one, other, stay = np.split(rng.permutation(len(last)), cuts)
        side = rng.standard_normal((n_split, d))
        side = 0.6 * unit(side - (side * last[split]).sum(axis=1, keepdims=True) * last[split])
        new = np.concatenate([
            turned(rng, last[stay]), unit(last[split] + side), unit(1.05 * last[one] + last[other]),
            unit(last[split] - 1.1 * side), unit(rng.standard_normal((n_born, d))),
        ])  # fmt: skip
        order = rng.permutation(len(new))
        rows.append(new[order])
        n_on = len(stay) + n_split + n_merge
        truth.append((n_on, n_split, n_merge, n_born, n_die))
        follows = np.full(len(last), -1)
        follows[np.concatenate([stay, split, one])] = np.argsort(order)[:n_on]
        survivors = follows[survivors]
        survivors = survivors[survivors >= 0]
        left.append(len(survivors))
    return [layer(r, at) for at, r in enumerate(rows)], truth, left


@pytest.fixture(scope="module")
def flowed():
    layers, truth, left = planted(0)
    return sg.flow(layers), truth, left


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_fates_are_counted_exactly(seed):
    layers, truth, left = planted(seed, n=150 + 30 * seed, d=96 * seed, layers=3)
    f = sg.flow(layers)
    assert [(s.n_continuing, s.n_splits, s.n_merges, s.n_births, s.n_deaths) for s in f.steps] == truth
    assert f.survivors[0].tolist() == left


def test_chains_know_their_path_and_turn(flowed):
    f, truth, left = flowed
    chains, edges = f.chains(), f.edges()
    assert f.survivors[0].tolist() == left
    assert len(chains) == 160 + sum(t[1] + t[3] for t in truth)
    assert (chains["begins"] == "born").sum() == sum(t[3] for t in truth)
    assert (chains["ends"] == "dies").sum() == sum(t[4] for t in truth)
    assert (chains["ends"] == "merges").sum() == sum(t[2] for t in truth)
    assert (edges["kind"] == "continues").sum() == sum(t[0] for t in truth)
    assert (edges["kind"] == "splits").sum() == sum(t[1] for t in truth)
    whole = chains[chains["n_layers"] == 4]
    assert (whole["turned"] >= whole["turned_net"] - 1e-6).all()
    assert np.isclose(whole["turned"].median(), 3 * DEGREES, atol=1e-3)
    for chain in whole.head(5).itertuples():
        ids = [getattr(chain, f"latent_{at}") for at in range(4)]
        for at, (i, j) in enumerate(pairwise(ids)):
            e = edges[(edges["step"] == at) & (edges["latent_id"] == i) & (edges["next_latent_id"] == j)]
            assert e["kind"].tolist() == ["continues"]
            x, y = (f.layers[t].directions[k].double() for t, k in ((at, i), (at + 1, j)))
            assert e["cosine"].item() == pytest.approx(float(x @ y), abs=1e-9)


def test_every_latent_has_one_fate_and_is_in_one_chain(flowed):
    f = flowed[0]
    for at, d in enumerate(f.layers):
        assert sorted(f.paths[f.paths[:, at] >= 0, at]) == list(range(d.n_latents))
    for step, a, b in zip(f.steps, f.layers, f.layers[1:], strict=False):
        assert step.n_continuing + step.n_merges + step.n_deaths == a.n_latents
        assert step.n_continuing + step.n_splits + step.n_births == b.n_latents


def test_ten_lines_summarize_what_persists(flowed):
    f, _, left = flowed
    lines = repr(f).splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) <= 80
    assert f"births per step: {' '.join(str(s.n_births) for s in f.steps)}" in repr(f)
    assert f"of 160 at layer 0, {left[-1]} survive to layer 3" in repr(f)
    assert " ".join(repr(f).split()).count("norms grow and meaning drifts") == 1


def test_ten_lines_are_enough_for_many_layers():
    rows = unit(np.random.default_rng(5).standard_normal((32, 24)))
    many = sg.flow([layer(rows, at) for at in range(16)])
    lines = repr(many).splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) <= 80
    assert "survivors by layer: 32 32 32 32 … 32 32 32 32" in lines[2]
    said = many.details()
    assert "14 → 15  32        0       0       0       0       1 → 1" in said
    assert "chains by layers: 32 of 16" in said
    assert said.count("norms grow") == 1


def test_the_figure_has_bundles_not_lines(flowed):
    ax = flowed[0].plot()
    assert not ax.lines
    columns = [p for p in ax.patches if hasattr(p, "get_height")]
    by_layer = {
        at: sum(p.get_height() for p in columns if round(p.get_x() + p.get_width() / 2) == at) for at in range(4)
    }
    assert by_layer == {at: d.n_latents for at, d in enumerate(flowed[0].layers)}
    assert len(ax.patches) <= 3 * 4 * 5 / 2


def test_a_few_latents_are_followed_by_the_threshold_alone():
    rows = np.eye(6, 8)
    f = sg.flow([layer(rows, 0), layer(rows[[3, 1, 0, 5]], 1)])
    assert (f.steps[0].n_continuing, f.steps[0].n_deaths, f.steps[0].n_births) == (4, 2, 0)
    assert any("too few for any to be significant" in c for c in f.caveats)


def test_unrelated_layers_share_nothing(rng):
    f = sg.flow([layer(rng.standard_normal((200, 96)), at) for at in (0, 1)])
    assert (f.steps[0].n_continuing, f.steps[0].n_births, f.steps[0].n_deaths) == (0, 200, 200)


def test_layers_of_other_models_and_other_sites_are_refused(rng):
    a, b = rng.standard_normal((2, 40, 16))
    with pytest.raises(ValueError, match="different model"):
        sg.flow([layer(a, 0), layer(b, 1, model="other")])
    with pytest.raises(ValueError, match="different hook point"):
        sg.flow([layer(a, 0), layer(b, 1, hook_point="blocks.1.mlp.hook_post")])
    assert any("allowed" in c for c in sg.flow([layer(a, 0), layer(b, 1, model="x")], allow_mismatch=True).caveats)
    with pytest.raises(ValueError, match="different hook point"):
        sg.compare(layer(a, 0), layer(b, 1))
    assert sg.flow([layer(a, 0, hook_point="model.layers.3"), layer(b, 1)]).layer_names == ("3", "1")


@pytest.mark.parametrize(
    ("count", "how", "said"),
    [
        (1, {}, "at least two layers; got 1"),
        (2, {"on": "x"}, "'writes' or 'reads'"),
        (2, {"threshold": 2.0}, "must be in"),
        (2, {"false_discovery_rate": 0.0}, "must be in"),
        (2, {"on": "reads"}, "has no encoder"),
        (2, {"fold": True}, "no thresholds to fold"),
    ],
)
def test_wrong_use_is_refused(count, how, said):
    with pytest.raises(ValueError, match=said):
        sg.flow([layer(np.eye(5, 8), at) for at in range(count)], **how)


def test_reads_follow_the_next_encoder(rng):
    a, b = unit(rng.standard_normal((80, 64))), unit(rng.standard_normal((80, 64)))
    order = rng.permutation(80)
    reader = a[order].copy()
    reader[:20] = unit(rng.standard_normal((20, 64)))
    f = sg.flow([layer(a, 0), layer(b, 1, encoder=reader.astype(np.float32))], on="reads", threshold=0.5)
    assert f.steps[0].n_continuing == 60
    np.testing.assert_array_equal(f.steps[0].one_to_one[order[20:]], np.arange(20, 80))
    assert "decoder · next encoder" in repr(f)
    assert sg.flow([layer(a, 0), layer(b, 1)]).steps[0].n_continuing == 0


def test_folding_scales_norms_by_thresholds(rng):
    rows = rng.standard_normal((30, 12))
    theta = rng.uniform(0.5, 2, (2, 30))
    layers = [layer(rows, at, threshold=theta[at], encoder_bias=np.ones(30)) for at in (0, 1)]
    f = sg.flow(layers, fold=True)
    np.testing.assert_allclose(
        f.edges()["norm_ratio"][:30], (theta[1] / theta[0])[f.edges()["latent_id"][:30]], rtol=1e-5
    )
    np.testing.assert_allclose(f.layers[0].encoder_bias, 1 / theta[0], rtol=1e-5)
    for edge in f.edges().head(30).itertuples():
        early, late = (theta[at, i] * rows[i] for at, i in enumerate((edge.latent_id, edge.next_latent_id)))
        assert edge.folded_mse == pytest.approx(((early - late) ** 2).mean(), rel=1e-3)
    assert f.summary()["mean_folded_mse_of_continuing"] == [pytest.approx(f.edges()["folded_mse"][:30].mean())]
    assert sg.flow(layers).edges()["norm_ratio"].eq(1).all()
    assert "folded_mse" not in sg.flow(layers).edges()
    with pytest.raises(ValueError, match="not positive and cannot be folded: latents 3"):
        layer(rows, 0, threshold=np.where(np.arange(30) == 3, 0.0, 1.0)).folded()


def test_thresholds_are_read_where_a_layout_has_them(tmp_path, rng):
    w = rng.standard_normal((20, 8)).astype(np.float32)
    theta = rng.uniform(0.1, 1, 20).astype(np.float32)
    np.savez(tmp_path / "params.npz", W_dec=w, W_enc=w.T, b_dec=w[0], b_enc=w[:, 0], threshold=theta)
    np.testing.assert_array_equal(sg.load(tmp_path / "params.npz").threshold, theta)
    state = {"W_dec": w, "W_enc": w.T, "b_dec": w[0], "b_enc": w[:, 0], "log_threshold": np.log(theta)}
    np.testing.assert_allclose(sg.as_dictionary(state).threshold, theta, rtol=1e-6)
    assert sg.load("demo:local-narrow-seed0").threshold is None


@pytest.mark.usefixtures("blank_figures")
def test_the_command_on_the_demo(tmp_path):
    out = tmp_path / "out"
    arguments = ["flow", "demo:local-seed{0,1}", "-o", str(out), "--json", "-q", "--format", "png"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    tables, saved = sg.read(out)
    chains = tables["chains"]
    assert len(chains) == summary["n_chains"] == saved["n_chains"]
    assert (chains["n_layers"] == 2).sum() == summary["n_through_all_layers"] == summary["steps"][0]["continuing"] > 500
    assert {"edges.parquet", "chains.parquet", "summary.json"} <= {p.name for p in out.iterdir()}
    assert (out / "figures" / "flow.png").exists()
    assert "flow: " in CliRunner().invoke(app, ["flow", "demo:local-seed{0,1}", "--dry-run"]).stdout


def test_a_map_per_step_is_applied_to_the_earlier_layer(rng):
    a = unit(rng.standard_normal((90, 48)))
    jacobian = rng.standard_normal((48, 48))
    jacobian[0] = 0
    a[7] = np.eye(48)[0]  # The map sends this latent to zero.
    order = rng.permutation(90)
    later = (a @ jacobian)[order] + 1e-3
    layers = [layer(a, 0), layer(later, 1)]
    assert sg.flow(layers).steps[0].n_continuing == 0
    f = sg.flow(layers, maps=[("jacobian", jacobian)])
    step, back, others = f.steps[0], np.argsort(order), np.arange(90) != 7
    np.testing.assert_array_equal(step.one_to_one[others], back[others])
    assert step.fate[7] == "dies"
    np.testing.assert_allclose(step.one_to_one_cosine[others], 1, atol=1e-3)
    edges = f.edges().set_index("latent_id")
    assert edges.loc[3, "plain_cosine"] == pytest.approx((a[3] * unit(later[back[3]][None])[0]).sum(), abs=1e-5)
    said = f.summary()["steps"][0]
    assert (said["map"], said["n_sent_to_zero"], len(said["map_sha256"])) == ("jacobian", 1, 64)
    assert any("1 latent sent to zero and left out: 7" in c for c in f.caveats)
    with pytest.raises(ValueError, match="one map per step, 1 in all; got"):
        sg.flow(layers, maps=[("j", jacobian)] * 2)
    with pytest.raises(ValueError, match="47 dimensions after the map"):
        sg.flow(layers, maps=[("j", jacobian[:, 1:])])


def test_an_orthogonal_map_of_all_layers_changes_nothing(flowed, rng):
    f = flowed[0]
    q, _ = np.linalg.qr(rng.standard_normal((128, 128)))
    turned_round = sg.flow([sg.mapped(d, q, name="q") for d in f.layers])
    assert turned_round.layer_names == f.layer_names
    for one, other in zip(f.steps, turned_round.steps, strict=True):
        np.testing.assert_array_equal(one.one_to_one, other.one_to_one)
        np.testing.assert_array_equal(one.fate, other.fate)
    edges = turned_round.edges()
    np.testing.assert_allclose(edges["plain_cosine"], edges["cosine"], atol=1e-6)
    others = [sg.mapped(layer(np.eye(5, 8), at, model=f"m{at}"), np.eye(8), name="i") for at in (0, 1)]
    with pytest.raises(ValueError, match="different model"):
        sg.flow(others)


def test_the_map_of_the_command(tmp_path):
    for at in (0, 1):
        np.save(tmp_path / f"m.{at}.npy", np.eye(576, dtype=np.float32))
    layers = ["flow", "demo:local-narrow-seed0", "b=demo:local-narrow-seed0"]
    for side, given in (("both", []), ("first", ["--map-side", "first"])):
        how = ["--map", str(tmp_path / "m.0.npy"), *given, "-o", str(tmp_path / side), "--json", "-q"]
        result = CliRunner().invoke(app, [*layers, *how, "--format", "png"])
        assert result.exit_code == 0, result.output
        summary = json.loads(result.stdout)
        told = summary["steps"][0] if side == "first" else summary["inputs"]["1"]["metadata"]
        assert (told["map"], told["n_sent_to_zero"]) == ("m.0", 0)
        assert summary["steps"][0]["continuing"] > 400
    result = CliRunner().invoke(app, [*layers, "--map", str(tmp_path / "m.{0,1}.npy"), "-o", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert "one file, or one per step (1); got 2" in result.stderr


def test_every_latent_with_an_edge_goes_somewhere():
    """Latent 0 continues as 2, 1 has its nearest there, 2 has only children, 0 is the closest, and 3 has no edge."""
    q, few = np.zeros(4), np.zeros(3)
    step = Step(
        one_to_one=np.array([2, -1, -1, -1]), one_to_one_cosine=np.array([0.9, np.nan, np.nan, np.nan]), one_to_one_q=q,
        forward=np.array([2, 2, -1, -1]), forward_cosine=np.array([0.9, 0.6, 0.4, 0.1]), forward_q=q,
        backward=np.array([2, 2, 0]), backward_cosine=np.array([0.7, 0.55, 0.9]), backward_q=few, method="optimal",
    )  # fmt: skip
    onward, cosine = step.onward
    assert step.fate.tolist() == ["continues", "merges", "merges", "dies"]
    assert onward.tolist() == [2, 2, 0, -1]
    assert cosine.tolist() == [0.9, 0.6, 0.7, 0.1]


def test_labels_say_what_a_chain_means_as_it_goes(flowed):
    f = flowed[0]
    assert f.meanings is None
    words = [
        sg.Labels.of(pd.DataFrame({"tokens": [[f"{at}w{i}", "x"] for i in d.latent_ids.tolist()]}), "words")
        for at, d in enumerate(f.layers)
    ]
    labeled = replace(f, layers=tuple(d.labeled(w) for d, w in zip(f.layers, words, strict=True)))
    table = labeled_table(labeled.chains(), labeled.layers)
    for at in range(4):
        for latent, told in zip(table[f"latent_{at}"], table[f"latent_{at}:tokens"], strict=True):
            assert pd.isna(told) if latent < 0 else json.loads(told)[0] == f"{at}w{latent}"
    edges = labeled_table(labeled.edges(), labeled.layers)
    assert json.loads(edges["next_tokens"][0])[0] == f"1w{edges['next_latent_id'][0]}"
    assert edges["token_overlap"].between(0.5, 1).all()
    told = labeled.summary()["labels"]
    assert [g["group"] for g in told["groups"]] == ["continues", "merges", "dies"]
    for chain in told["chains"]:
        assert [m["run"] for m in chain["latents"]] == ["L0", "L1", "L2", "L3"]
        assert [m["label"] for m in chain["latents"]] == [
            f"{at}w{m['latent_id']} x" for at, m in enumerate(chain["latents"])
        ]
    assert [c["turned"] for c in told["chains"]] == sorted(c["turned"] for c in told["chains"])
    assert any("→" in line and "0w" in line for line in labeled.meanings.few_lines(9))
    assert all(len(line) <= 80 for line in labeled.meanings.few_lines(9))
    assert "chain that turns by" in labeled._repr_html_()


def test_checkpoints_of_a_run_as_layers_keep_their_ids():
    """Follow states of one training: each latent is its own partner, and a chain through all states has one id."""
    f = sg.flow(checkpoints("demo:local-narrow-seed0"))
    whole = f.paths[(f.paths >= 0).all(axis=1)]
    assert len(f.layers) == 4
    assert len(whole) > 400
    assert (whole == whole[:, :1]).all(axis=1).mean() > 0.99
