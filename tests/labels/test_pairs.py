"""Tests of labels of pairs: groups, overlaps, logit effects, and hostile text that stays text."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import sae_geometry as sg
from sae_geometry.dictionary import Dictionary
from sae_geometry.io.labels import Labels
from sae_geometry.labels import Unembedding, read_tokens
from sae_geometry.labels.pairs import GROUPS, pair_labels
from sae_geometry.nulls.competition import share_of
from sae_geometry.pairwise.label_columns import labeled_list, labeled_table, logit_cosine, token_overlap

V, D = 300, 16
HOSTILE = ["<script>alert(1)</script>", "=HYPERLINK(1)", "a\x1b[2J\u202eb\nc", "x" * 10_000, "$\\frac{1}$", "&amp;"]


@pytest.fixture(scope="module")
def unembedding() -> Unembedding:
    weight = torch.nn.functional.normalize(torch.randn(V, D, generator=torch.Generator().manual_seed(0)))
    return Unembedding.from_weights(weight, [f" w{i}" for i in range(V)])


def noisy(rows: torch.Tensor, seed: int, noise: float, name: str) -> Dictionary:
    drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    return Dictionary.from_decoder(torch.nn.functional.normalize(rows) + noise * drawn, latent_axis=0, name=name)


@pytest.fixture(scope="module")
def pair(unembedding) -> tuple[Dictionary, Dictionary]:
    """Return two noisy copies of token directions; the second halves are unrelated."""
    rows = unembedding.rows[:120]
    a = noisy(rows, 1, 0.05, "a")
    other = torch.randn(60, D, generator=torch.Generator().manual_seed(9))
    b = noisy(torch.cat([rows[:60], other]), 2, 0.05, "b")
    return tuple(d.labeled(read_tokens(d, unembedding, k=5).labels) for d in (a, b))


def test_overlap_is_of_different_tokens_and_unknown_without_any():
    a = pd.Series([["x", "y", "y"], ["x"], None, []])
    b = pd.Series([["y", "z"], ["x"], ["x"], ["x"]])
    np.testing.assert_allclose(token_overlap(a, b, 4), [0.5, 1.0, np.nan, np.nan])
    assert np.isnan(token_overlap(None, b, 4)).all()


def test_the_cosine_of_logit_effects_is_the_dense_one(pair, unembedding):
    a, b = pair
    ids = {"run": "a", "latent_id": [3, 5, 7], "partner_run": "b", "partner_id": [4, -1, 6]}
    found = logit_cosine(pd.DataFrame(ids), {"a": a, "b": b})
    x, y = (d.directions[rows].double() @ unembedding.rows.double().T for d, rows in ((a, [3, 7]), (b, [4, 6])))
    np.testing.assert_allclose(found[[0, 2]], torch.nn.functional.cosine_similarity(x, y, dim=1), atol=1e-9)
    assert np.isnan(found[1])


@pytest.mark.usefixtures("blank_figures")
def test_planted_tokens_are_read_back_in_every_place(pair, tmp_path):
    a, b = pair
    c = sg.compare(a, b, turns=0)
    matched = c.meanings.summary()["groups"][0]
    assert matched["n"] > 90  # of 120
    assert matched["readable"]["value"] > 0.9
    assert matched["readable"]["low"] < matched["readable"]["value"] < matched["readable"]["high"]
    assert matched["token_overlap"] > 0.5
    assert matched["logit_cosine"] > 0.9
    assert c.summary()["labels"] == c.meanings.summary()
    text = "\n".join(c.meanings.lines())
    assert GROUPS[0] in text
    assert GROUPS[2] in text
    assert "readable (FDR 5%): most alike" in text
    assert "<table>" in c._repr_html_()
    tables, summary = sg.read(sg.save(c, tmp_path / "out", formats=["png"]))
    table = tables["matches"][tables["matches"].direction == "a_to_b"]
    assert [json.loads(t)[0] for t in table.tokens] == [f" w{i}" for i in range(120)]
    assert {"partner_tokens", "readable", "token_overlap", "logit_cosine"} <= set(table.columns)
    assert (table.token_overlap[:60] > 0.3).all()
    assert summary["labels"]["groups"][0]["group"] == GROUPS[0]
    assert "w0" in (tmp_path / "out" / "shared.csv").read_text()


def test_turned_dictionaries_are_readable_at_no_more_than_the_stated_rate(unembedding):
    shares = []
    for seed in range(100, 105):
        rows = torch.randn(200, D, generator=torch.Generator().manual_seed(seed))
        shares.append(read_tokens(Dictionary.from_decoder(rows, latent_axis=0), unembedding, k=1).readable.mean())
    assert np.mean(shares) <= 0.05


def test_without_labels_nothing_is_added(pair):
    plain = [Dictionary.from_decoder(d.directions, latent_axis=0, name=d.name) for d in pair]
    c = sg.compare(*plain, turns=0)
    assert c.meanings is None
    assert "labels" not in c.summary()
    table = c.to_pandas()
    assert labeled_table(table, plain) is table


def test_every_question_shows_labels(pair):
    a, b = pair
    assert "readable (FDR 5%)" in "\n".join(sg.within(a).meanings.lines())
    assert "closest children" in "\n".join(sg.split(b, a).meanings.lines())
    s = sg.seeds([a, b, noisy(a.directions, 3, 0.05, "c")])
    groups = {g["group"]: g["n"] for g in s.meanings.summary()["groups"]}
    assert sum(groups.values()) == 360
    assert groups["in every run"] >= 150
    assert s.summary()["labels"]["groups"]
    consensus = labeled_table(s.tables()["consensus"], s.dictionaries)
    assert json.loads(consensus["a:tokens"][0]) == list(a.labels.for_ids([int(consensus["a"][0])]).tokens.iloc[0])


def test_a_group_that_the_first_run_lacks_shows_another_run(pair):
    table = pd.DataFrame({"run": ["a", "a", "b"], "latent_id": [0, 1, 100], "cosine": [0.9, 0.8, np.nan],
                          "partner_run": ["b", "b", None], "partner_id": [0, 1, -1]})  # fmt: skip
    found = pair_labels(table, pair, groups=["x", "x", "z"], names=("x", "y", "z"))
    *rows, shares = found.few_lines(0)
    assert [line.split()[0] for line in rows] == ["x", "z"]
    assert shares.count("[") == 2  # one per row
    assert any("b 100" in line for line in found.lines())


def test_different_explainers_are_reported():
    d, e = (
        Dictionary.from_decoder(torch.eye(3, 4), latent_axis=0, name=name).labeled(
            Labels.of(pd.DataFrame({"explanation": ["x", "y", "z"]}), f"Neuronpedia, m/s, by {who}")
        )
        for name, who in (("d", "gpt-4"), ("e", "gpt-3.5"))
    )
    lines = "\n".join(sg.compare(d, e, turns=0).meanings.lines())
    assert "explainers differ (gpt-3.5, gpt-4): do not compare their explanations" in lines


@pytest.mark.usefixtures("blank_figures")
def test_hostile_labels_are_text_everywhere(tmp_path):
    frame = pd.DataFrame({"tokens": [[t] for t in HOSTILE], "explanation": HOSTILE, "own": HOSTILE})
    a, b = (
        Dictionary.from_decoder(torch.eye(6, 8), latent_axis=0, name=name).labeled(Labels.of(frame, "<b>mine</b>"))
        for name in "ab"
    )
    c = sg.compare(a, b, turns=0)
    text = "\n".join(c.meanings.lines())
    assert not any(ch in text for ch in "\x1b\u202e")
    assert max(map(len, text.split("\n"))) < 400
    for page in (c._repr_html_(), c.report()):
        assert "<script>alert" not in page
        assert "<b>mine" not in page
    tables, _ = sg.read(sg.save(c, tmp_path / "out", formats=["png"]))
    assert tables["matches"]["label:own"].iloc[0] == HOSTILE[0]
    csv = (tmp_path / "out" / "shared.csv").read_text()
    assert not any(cell.startswith("=") for line in csv.splitlines() for cell in line.split(","))


def test_pairs_below_minus_one_are_alike_only_when_unsigned():
    d = Dictionary.from_decoder(torch.eye(2), latent_axis=0, name="label").labeled(
        Labels.of(pd.DataFrame({"own": ["x", "y"]}), "s")
    )
    table = pd.DataFrame({"run": "label", "latent_id": [0, 1], "cosine": [-0.9, 0.9], "partner_run": "label",
                          "partner_id": [1, 0], "significant": True})  # fmt: skip
    assert pair_labels(table, [d], signed=False).table.group.tolist() == ["most alike"] * 2
    assert pair_labels(table, [d]).table.group.tolist() == ["in between", "most alike"]
    assert labeled_list(table, [d]).label.tolist() == ["own x", "own y"]
    assert "own x" in pair_labels(table, [d]).lines()[2]


def test_different_explainers_are_warned_of_on_the_first_screen():
    rows = torch.eye(4, 6)
    made = []
    for name, explainer in (("a", "gpt-4o"), ("b", "gpt-3.5"), ("c", "gpt-4o")):
        told = Labels.of(pd.DataFrame({"explanation": ["x"] * 4}), f"Neuronpedia, m/{name}, by {explainer}")
        made.append(Dictionary.from_decoder(rows, latent_axis=0, name=name).labeled(told))
    warned = sg.compare(made[0], made[1], turns=0).meanings
    assert "! explainers differ (gpt-3.5, gpt-4o): do not compare" in " ".join(warned.few_lines(20))
    assert all(len(line) <= 80 for line in warned.few_lines(20))
    assert any("explainers differ" in text for text in warned.summary()["sources"])
    assert "explainers differ" not in " ".join(sg.compare(made[0], made[2], turns=0).meanings.lines())


def test_a_screen_has_as_many_pairs_of_each_group_as_there_is_room_for(pair):
    ids = np.arange(120)
    table = pd.DataFrame({"run": "a", "latent_id": ids, "cosine": 0.5, "partner_run": "b", "partner_id": ids})
    found = pair_labels(table, pair, groups=np.array(GROUPS)[ids % 3])
    for room, each in ((0, 1), (6, 1), (7, 2), (9, 2), (10, 3), (50, 3)):
        *rows, shares = found.few_lines(room)
        assert [line[2:19].strip() for line in rows] == [x for name in GROUPS for x in [name, *[""] * (each - 1)]]
        assert shares.count("[") == 3


def test_latents_that_found_each_other_count_once_in_the_intervals():
    """Mutual partners carry the information of one latent; unmatched latents count in full."""
    known = pd.DataFrame({"readable": [True, False] * 50})
    a, b = (Dictionary.from_decoder(torch.eye(100), latent_axis=0, name=n).labeled(Labels.of(known, "s")) for n in "ab")
    ids = np.arange(100)
    table = pd.concat([pd.DataFrame({"run": run, "latent_id": ids, "cosine": 0.9, "partner_run": other,
                                     "partner_id": ids}) for run, other in ("ab", "ba")])  # fmt: skip

    def readable(partners: pd.DataFrame, group: str) -> dict:
        made = pair_labels(partners, [a, b], groups=np.full(200, group))
        return made.summary()["groups"][GROUPS.index(group)]["readable"]

    one, both = share_of(50, 100), readable(table, GROUPS[0])
    assert (both["n"], both["n_independent"]) == (200, 100)
    assert (both["value"], both["low"], both["high"]) == pytest.approx((one.value, one.low, one.high))
    assert readable(table, GROUPS[2])["n_independent"] == 200
    hub = table.assign(partner_id=7)  # One latent of each run is the nearest of all others.
    assert readable(hub, GROUPS[0])["n_independent"] == 1


def test_explanations_stand_on_lines_of_their_own_and_are_not_cut_to_a_word():
    text = "references to dates and years in legal documents"
    d = Dictionary.from_decoder(torch.eye(3, 4), latent_axis=0, name="d").labeled(
        Labels.of(pd.DataFrame({"explanation": [text] * 3}), "mine")
    )
    first, second, *_ = sg.compare(d, d.renamed("e"), turns=0).meanings.few_lines(0)
    for line in (first, second):
        assert line.endswith("references to dates and years in legal…")
        assert len(line) <= 80


def test_a_share_just_below_zero_is_printed_without_a_minus():
    known = pd.DataFrame({"token_cosine": [0.0, 0.0, 1.0] * 67, "turned_token_cosine": 0.5}).iloc[:201]
    known.loc[:99, "token_cosine"], known.loc[100:, "token_cosine"] = 1.0, 0.0  # 2 · 100 / 201 − 1 is just below zero.
    d = Dictionary.from_decoder(torch.eye(201), latent_axis=0, name="d").labeled(Labels.of(known, "mine"))
    said = " ".join(sg.within(d).meanings.lines())
    assert "readable beyond chance" in said
    assert "-0%" not in said
