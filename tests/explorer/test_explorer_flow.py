"""Tests of the page of a flow: layers side by side, with chains and edges as partners, in memory and saved."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from explorer_cases import arrays_of
from oracles import unit

import sae_geometry as sg
from sae_geometry import explorer
from sae_geometry.explorer.flow_contents import contents_of_flow, read_flow
from sae_geometry.explorer.packing import NO_PARTNER, ON_CHAIN, pack

pytest.importorskip("plotly", reason="the explorer needs plotly")


@pytest.fixture(scope="module")
def flow() -> sg.Flow:
    """Return three layers: 36 of 40 latents continue, then 30 of these, and 2 latents split off at the second step."""
    rng = np.random.default_rng(0)
    first = unit(rng.standard_normal((40, 96)))
    second = np.concatenate([first[rng.permutation(40)[:36]], unit(rng.standard_normal((5, 96)))])
    third = np.concatenate(
        [second[rng.permutation(36)[:30]], unit(second[:2] + 0.6 * unit(rng.standard_normal((2, 96))))]
    )
    layers = [
        sg.Dictionary.from_decoder(
            rows, latent_axis=0, name=f"L{at}", model="m", hook_point=f"blocks.{at}.hook_resid_post"
        ).labeled(
            sg.Labels.of(
                pd.DataFrame({"tokens": [[f" w{at}.{i}"] for i in range(len(rows))], "readable": True}), "words"
            )
        )
        for at, rows in enumerate((first, second, third))
    ]
    return sg.flow(layers)


def test_partners_are_the_edges_and_the_chains(flow):
    table = contents_of_flow(flow).table.set_index(["run", "latent_id"])
    assert len(table) == sum(d.n_latents for d in flow.layers)
    for path in flow.paths:
        for at, row in enumerate(path):
            for to in (t for t in range(3) if row >= 0 and t != at):
                told = table.loc[(f"L{at}", row), f"one_to_one_partner_id:L{to}"]
                assert (pd.isna(told) and path[to] < 0) or told == path[to]
    edges = flow.edges()
    for at in (0, 1):
        step = edges[edges["step"] == at]
        best = step.loc[step.groupby("latent_id")["cosine"].idxmax()].set_index("latent_id")
        told = table.loc[f"L{at}"]
        pd.testing.assert_series_equal(
            told.loc[best.index, f"max_cosine:L{at + 1}"], best["cosine"], check_names=False, check_index_type=False
        )
        assert (told.loc[best.index, f"partner_id:L{at + 1}"] == best["next_latent_id"]).all()
        assert told.drop(best.index)[f"partner_id:L{at + 1}"].isna().all()
    assert table.loc["L0", "partner_id:L2"].isna().all()
    assert json.loads(table.loc[("L1", 3), "tokens"]) == [" w1.3"]


def test_layers_lie_side_by_side_and_the_longest_chains_lowest(flow):
    table = contents_of_flow(flow).table
    ends = table.groupby("run")["x"].agg(["min", "max"])
    assert (ends["max"].to_numpy()[:-1] < ends["min"].to_numpy()[1:]).all()
    height = table.set_index(["run", "latent_id"])["y"]
    starting = flow.paths[flow.paths[:, 0] >= 0]
    lasting = (starting >= 0).sum(axis=1)
    heights = np.array([height[("L0", row)] for row in starting[:, 0]])
    assert heights[lasting == 3].max() < heights[lasting == 2].min() < heights[lasting == 1].min()


def test_a_flow_and_the_folder_it_was_saved_to_show_the_same(flow, tmp_path):
    sg.save(flow, tmp_path / "saved", formats=["png"], add=explorer.add_page)
    assert (tmp_path / "saved" / "explorer.html").stat().st_size > 1e6
    direct = contents_of_flow(flow)
    saved = read_flow(tmp_path / "saved", sg.read(tmp_path / "saved").summary)
    pd.testing.assert_frame_equal(direct.table, saved.table, check_dtype=False)
    one, two = direct.about(), saved.about()
    for about in (one, two):
        del about["command"], about["created"]
    assert json.dumps(one) == json.dumps(two)
    assert one["flow"]
    assert one["labels"] == ["tokens by words"]
    assert sg.explore(tmp_path / "saved", tmp_path / "again.html").exists()
    assert sg.explore(flow, tmp_path / "direct.html").exists()
    (tmp_path / "saved" / "chains.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"chains\.parquet"):
        sg.explore(tmp_path / "saved", tmp_path / "third.html")


def test_more_layers_than_a_page_holds_are_refused(flow):
    step = flow.steps[0]
    many = [flow.layers[0].renamed(f"x{i}") for i in range(25)]
    same = replace(step, **{name: getattr(step, name)[:40] for name in ("backward", "backward_cosine", "backward_q")})
    long = replace(flow, layers=tuple(many), steps=tuple([same] * 24))
    with pytest.raises(ValueError, match="up to 24 layers; this flow has 25"):
        contents_of_flow(long)


def test_what_is_left_out_of_a_page_follows_from_its_chains(flow):
    table, names = contents_of_flow(flow).table, [d.name for d in flow.layers]
    whole, thin = (arrays_of(pack(table, names, [], in_chains=chains)) for chains in (False, True))
    run = thin["run"].astype(int)
    further = (whole["single_1"] != NO_PARTNER) & (run != 1)
    assert further.sum() >= 60
    assert (thin["single_1"][further] == NO_PARTNER).all()
    assert (thin["nearest_0"] == ON_CHAIN).sum() >= 70
    for i in np.flatnonzero(run < 2):
        k, to = run[i], thin[f"single_{run[i]}"][i]
        if to != NO_PARTNER:
            thin[f"single_{k}"][to], thin[f"single_cosine_{k}"][to] = i, thin[f"single_cosine_{k}"][i]
    for k in (0, 1):
        on_chain = thin[f"nearest_{k}"] == ON_CHAIN
        thin[f"nearest_{k}"][on_chain] = thin[f"single_{k}"][on_chain]
        thin[f"cosine_{k}"][on_chain] = thin[f"single_cosine_{k}"][on_chain]
    for end, over, slot in ((0, 0, 1), (2, 1, 0)):  # layer, slot of the middle layer, slot of the other end
        for i in np.flatnonzero((run == end) & (thin[f"single_{over}"] != NO_PARTNER)):
            thin[f"single_{slot}"][i] = thin[f"single_{slot}"][thin[f"single_{over}"][i]]
    assert whole.keys() == thin.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(thin[name], values, err_msg=name)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_lines_go_from_layer_to_layer(flow, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from explorer_reader import FLAGS, Reader

    page = sg.explore(flow, tmp_path / "flow.html")
    table = contents_of_flow(flow).table.set_index(["run", "latent_id"])
    path = flow.paths[(flow.paths >= 0).all(axis=1)][4]
    chain = [table.loc[(f"L{at}", row), ["x", "y"]].astype(float).tolist() for at, row in enumerate(path)]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        reader = Reader(browser, viewport={"width": 1300, "height": 850}).open(page, f"#run=L1&latent={path[1]}")
        reader.wait_for_latent(path[1])
        wanted = [chain[0], chain[1], [None, None], chain[1], chain[2], [None, None]]
        for drawn, point in zip(reader.lines(1), wanted, strict=True):
            assert drawn == [v if v is None else pytest.approx(v, abs=1e-6) for v in point]
        reader.page.evaluate("(hash) => { location.hash = hash }", f"#run=L0&latent={path[0]}")
        reader.wait_for_latent(path[0])
        assert reader.lines(1)[1] == [pytest.approx(v, abs=1e-6) for v in chain[1]]
        assert len(reader.lines(1)) == 6
        reader.page.evaluate("(hash) => { location.hash = hash }", f"#run=L1&latent={path[1]}")
        reader.wait_for_latent(path[1])
        said = reader.text("#chosen")
        for at, row in enumerate(path):
            assert f"w{at}.{row}" in said
        assert "chain too" in said
        assert "Layers of L0" in reader.page.get_attribute("#picture", "aria-label")
        assert "a solid line follows a chain" in reader.text("#evidence")
        reader.page.fill("#wanted", f"w0.{path[0]}")
        reader.page.press("#wanted", "Enter")
        assert reader.shown() == 1
        # A latent whose chain ends in its layer has lines to the previous layer only.
        ending = flow.paths[(flow.paths >= 0).sum(axis=1) == 1][0]
        at = int((ending >= 0).argmax())
        reader.page.evaluate("(hash) => { location.hash = hash }", f"#run=L{at}&latent={ending[at]}")
        reader.wait_for_latent(ending[at])
        assert reader.lines(1) == []
        assert (reader.said, len(reader.requests)) == ([], 1)
        browser.close()
