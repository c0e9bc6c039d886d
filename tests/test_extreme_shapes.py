"""Tests with one latent or one dimension: every question has an answer, or one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import sae_geometry as sg

SHAPES = [(1, 1), (5, 1), (1, 64)]
QUESTIONS: dict[str, Callable[[list[sg.Dictionary]], Any]] = {
    "compare": lambda runs: sg.compare(*runs[:2], matching="optimal"),
    "both": lambda runs: sg.compare(*runs[:2], matching="mutual", on="both", signed=False),
    "within": lambda runs: sg.within(runs[0]),
    "agreement": lambda runs: sg.agreement(*runs[:2]),
    "span": lambda runs: sg.span(*runs[:2]),
    "split": lambda runs: sg.split(*runs[:2]),
    "seeds": lambda runs: sg.seeds(runs),
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
    assert not re.search(r"\b(?<![\d.,])1 (latents|runs|rows|pairs|vectors|features|dimensions)\b", _texts(result))
    folder = sg.save(result, tmp_path / "out", figures={})
    assert "NaN" not in (folder / "summary.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("shape", [*SHAPES[:2], pytest.param(SHAPES[2], marks=pytest.mark.slow)])
@pytest.mark.parametrize("question", QUESTIONS)
def test_it_can_be_drawn(question, shape):
    figures = QUESTIONS[question](three_runs(*shape)).figures()
    assert figures
    for figure in figures.values():
        figure.set_dpi(50)
        FigureCanvasAgg(figure).draw()


def _texts(result: Any) -> str:
    return "\n".join([result.details(), result.method, *result.caveats])


@pytest.mark.parametrize("shape", SHAPES)
def test_so_has_the_match_report(shape):
    a, b, _ = three_runs(*shape)
    report = sg.match(a, b).record
    json.dumps(report, allow_nan=False)
    assert report["pw_mcc"]["signed"]["n_pairs"] == shape[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_embedding_of_so_few_is_refused(shape):
    with pytest.raises(ValueError, match="below the"):
        sg.umap(three_runs(*shape))


def test_the_figure_says_if_no_latent_is_left():
    axes = sg.span(np.eye(3, 8), np.eye(3, 8)).figures()["span"].axes
    assert [ax.texts[0].get_text() for ax in axes] == ["every latent has a partner", "no latent without a partner"]


def test_among_too_few_latents_no_child_is_significant():
    s = sg.split(np.ones((5, 1)), np.ones((6, 1)))
    assert not s.found.any()
    assert "too few for any to be significant" in repr(s)


@pytest.mark.parametrize(
    "caveats_of",
    [
        pytest.param(lambda few, many: sg.compare(few, many).caveats, id="compare"),
        pytest.param(lambda few, many: [sg.seeds([many, few]).details()], id="seeds"),
        pytest.param(lambda few, many: sg.span(few, many).caveats, id="span"),
        pytest.param(lambda few, many: sg.agreement(few, many).caveats, id="agreement"),
        pytest.param(lambda few, many: sg.within(few).caveats, id="within"),
        pytest.param(lambda few, many: sg.match(few, many).record["caveats"], id="match"),
    ],
)
def test_few_latents_are_reported(caveats_of):
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
    assert "too few for any to be significant: 9 latents" in " ".join(caveats_of(few, many))
