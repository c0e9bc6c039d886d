"""One latent, one dimension: every question has an answer, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sae_geometry as sg
from sae_geometry.comparisons.match_report import match_report

SHAPES = [(1, 1), (5, 1), (1, 64)]
QUESTIONS: dict[str, Callable[[list[sg.Dictionary]], Any]] = {
    "compare": lambda runs: sg.compare(*runs[:2], matching="optimal"),
    "both": lambda runs: sg.compare(*runs[:2], matching="mutual", on="both", signed=False),
    "within": lambda runs: sg.compare_within(runs[0]),
    "agreement": lambda runs: sg.encoder_agreement(*runs[:2]),
    "span": lambda runs: sg.span_overlap(*runs[:2]),
    "split": lambda runs: sg.split_map(*runs[:2]),
    "seeds": lambda runs: sg.compare_seeds(runs),
}


def three_runs(n: int, d: int) -> list[sg.Dictionary]:
    rng = np.random.default_rng(0)
    return [
        sg.Dictionary.from_decoder(
            rng.standard_normal((n, d)), latent_axis=0, encoder=rng.standard_normal((n, d)), name=f"r{k}"
        )
        for k in range(3)
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_it_has_an_answer(question, shape, tmp_path):
    result = QUESTIONS[question](three_runs(*shape))
    assert "nan" not in repr(result)
    folder = sg.save(result, tmp_path / "out", formats=["png"])
    assert "NaN" not in (folder / "summary.json").read_text(encoding="utf-8")
    assert list((folder / "figures").glob("*.png"))


@pytest.mark.parametrize("shape", SHAPES)
def test_so_has_the_match_report(shape):
    a, b, _ = three_runs(*shape)
    report = match_report(a, b)
    json.dumps(report, allow_nan=False)
    assert report["pw_mcc"]["signed"]["n_pairs"] == shape[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_picture_of_so_few_is_refused(shape):
    with pytest.raises(ValueError, match="below the"):
        sg.embed(three_runs(*shape))


def test_where_nobody_is_left_the_figure_says_so():
    axes = sg.span_overlap(np.eye(3, 8), np.eye(3, 8)).figures()["span"].axes
    assert [ax.texts[0].get_text() for ax in axes] == ["every latent has a partner", "none without a partner"]


def test_no_child_is_called_one_where_chance_is_unknown():
    s = sg.split_map(np.ones((5, 1)), np.ones((6, 1)))
    assert not s.found.any()
    assert "chance is unknown and no latent is called a child" in repr(s)


FEW = "fewer latents (9) than dimensions (16)"


@pytest.mark.parametrize(
    "caveats_of",
    [
        pytest.param(lambda few, many: sg.compare(few, many).caveats, id="compare"),
        pytest.param(lambda few, many: sg.compare_seeds([many, few]).caveats, id="seeds"),
        pytest.param(lambda few, many: sg.split_map(few, many).caveats, id="split"),
        pytest.param(lambda few, many: sg.span_overlap(few, many).caveats, id="span"),
        pytest.param(lambda few, many: sg.encoder_agreement(few, many).caveats, id="agreement"),
        pytest.param(lambda few, many: sg.compare_within(few).caveats, id="within"),
        pytest.param(lambda few, many: match_report(few, many)["caveats"], id="match"),
    ],
)
def test_few_latents_are_said_to_be_few(caveats_of):
    few, many = (
        sg.Dictionary.from_decoder(
            sg.random_directions(n, 16, seed=n),
            latent_axis=0,
            name=f"of {n}",
            encoder=sg.random_directions(n, 16, seed=50 + n),
            encoder_latent_axis=0,
        )
        for n in (9, 40)
    )
    caveats = caveats_of(few, many)
    assert sum(c.startswith("of 9: " + FEW) for c in caveats) == 1
    assert not any(c.startswith("of 40: fewer") for c in caveats)


def test_few_latents_are_counted_against_the_dimensions_that_are_compared():
    """Decoder and encoder side by side are one direction; an encoder may be of a width of its own."""
    a, b = (
        sg.Dictionary.from_decoder(
            sg.random_directions(40, 24, seed=k),
            latent_axis=0,
            name=name,
            encoder=sg.random_directions(40, 50, seed=9 + k),
            encoder_latent_axis=0,
        )
        for k, name in enumerate("ab")
    )
    said = {on: [c for c in sg.compare(a, b, on=on).caveats if "fewer" in c] for on in ("decoder", "encoder", "both")}
    assert said["decoder"] == []
    assert [c.split(":")[1] for c in said["encoder"]] == [" fewer latents (40) than dimensions of its encoder (50)"] * 2
    assert [c.split(":")[1] for c in said["both"]] == [
        " fewer latents (40) than dimensions of its decoder and encoder (74)"
    ] * 2
    assert sg.encoder_agreement(a, b).caveats == sg.compare(a, b, on="encoder").caveats


def test_of_many_dictionaries_of_few_latents_one_is_named():
    """And what is said of the dictionaries themselves is not crowded out."""
    runs = [
        sg.Dictionary.from_decoder(sg.random_directions(9, 16, seed=k), latent_axis=0, name=f"r{k}") for k in range(6)
    ]
    runs[5] = replace(runs[5], notes=("a note",))
    caveats = sg.compare_seeds(runs).caveats
    assert caveats[0] == "r5: a note"
    assert caveats[-1].startswith("r0: fewer latents (9) than dimensions (16), and so are 5 more of the 6 runs: chance")
    assert sum("fewer latents" in c for c in caveats) == 1
