"""Tests that wrong answers and records from Dask workers are rejected."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import on_workers
import oracles
import pytest
import torch
from cluster_cases import dask_runner, points

import sae_geometry as sg
from sae_geometry.comparisons.seeds import _compare_pair
from sae_geometry.distributed import worker as work
from sae_geometry.distributed.answer_check import check_pair_answer, check_tile
from sae_geometry.distributed.errors import ClusterError
from sae_geometry.kernels.ledger import Entry
from sae_geometry.kernels.settings import changed
from sae_geometry.kernels.sweep import _task, sweep
from sae_geometry.kernels.tiles import Tile
from sae_geometry.pairwise.pair_record import PairParameters, PairRecord, check_pair

PARAMETERS = PairParameters("greedy", "decoder", True, 0.7)


def in_one_row(a, change):
    """Return the answer with one row's lists changed, which a sample of rows would rarely include."""
    cosine, index = (x.copy() for x in a.rows)
    cosine[7], index[7] = change(cosine[7], index[7])
    return replace(a, rows=(cosine, index))


WRONG = {
    "one list in another order": lambda a: in_one_row(a, lambda c, i: (c[::-1], i[::-1])),
    "one partner twice": lambda a: in_one_row(a, lambda c, i: (c[[0, 0, 2]], i[[0, 0, 2]])),
    "one partner twice, with two cosines": lambda a: in_one_row(a, lambda c, i: (c, i[[0, 0, 2]])),
    "one cosine not a number": lambda a: in_one_row(a, lambda c, i: (c * np.nan, i)),
    "one cosine a little above 1": lambda a: in_one_row(a, lambda c, i: (c / c * [1.0001, 1, 1], i)),
    "a cosine of 5": lambda a: replace(a, rows=(a.rows[0] + 5, a.rows[1])),
    "not a number": lambda a: replace(a, rows=(a.rows[0] * np.nan, a.rows[1])),
    "a cosine off by a bit": lambda a: replace(a, rows=(np.nextafter(a.rows[0], 1), a.rows[1])),
    "other partners": lambda a: replace(a, rows=(a.rows[0], a.rows[1][::-1].copy())),
    "partners beyond": lambda a: replace(a, rows=(a.rows[0], a.rows[1] + 10_000)),
    "partners before": lambda a: replace(a, rows=(a.rows[0], a.rows[1] - 10_000)),
    "rows missing": lambda a: replace(a, rows=(a.rows[0][:-1], a.rows[1][:-1])),
    "one more partner": lambda a: replace(a, rows=(np.hstack([a.rows[0]] * 2), np.hstack([a.rows[1]] * 2))),
    "another type": lambda a: replace(a, rows=(a.rows[0].astype(np.float32), a.rows[1])),
    "objects": lambda a: replace(a, rows=(a.rows[0].astype(object), a.rows[1])),
    "lists": lambda a: replace(a, rows=(a.rows[0].tolist(), a.rows[1].tolist())),
    "no columns": lambda a: replace(a, cols=None),
    "columns' cosines": lambda a: replace(a, cols=(-a.cols[0], a.cols[1])),
    "another version": lambda a: replace(a, version="0.0.1"),
    "another sweep's report": lambda a: replace(a, report=replace(a.report, d_in=7)),
    "a report of texts": lambda a: replace(a, report=replace(a.report, seconds="soon")),
    "a report of nothing": lambda a: replace(a, report=replace(a.report, screen=None)),
    "a report below zero": lambda a: replace(a, report=replace(a.report, rows_redone=-1)),
    "a report of no number": lambda a: replace(a, report=replace(a.report, epsilon=float("nan"))),
    "masked": lambda a: replace(a, rows=(np.ma.array(a.rows[0] + 5, mask=True), a.rows[1])),
    "no report": lambda a: replace(a, report=None),
    "nothing": lambda a: None,
    "something else": lambda a: {"rows": a.rows},
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["between", "within", "absolute", "biased"])
def test_a_wrong_answer_is_rejected(spoil, kind):
    a, b = points(300, 0), points(200, 1)
    bias = torch.linspace(-0.3, 0.2, 200, dtype=torch.float64) if kind == "biased" else None
    tile = Tile((40, 160), (40, 160), within=True) if kind == "within" else Tile((100, 300), (0, 200))
    others = None if kind == "within" else b
    task = _task(a, others, 3, bias is None, kind == "absolute", bias, "auto", None, None, None, None)
    question = {"k": 3, "columns": bias is None, "absolute": kind == "absolute", "screen": "auto", "device": "cpu"}
    good = work.sweep_tile(a.numpy(), b.numpy(), tile, question, None if bias is None else bias.numpy())
    check_tile(task, tile, good)
    try:
        wrong = spoil(good)
    except TypeError:  # This kind has no lists of columns to spoil.
        return
    if kind in ("within", "biased") and wrong is not None and getattr(wrong, "cols", 1) is None:
        return
    with pytest.raises(ClusterError, match="a Dask worker gave a wrong answer"):
        check_tile(task, tile, wrong)


def test_a_command_stops_at_a_wrong_answer_and_saves_nothing(client, workers_do):
    workers_do(on_workers.cosine_of_five)
    with pytest.raises(ClusterError, match="it was discarded"), changed(runner=dask_runner(client)):
        sweep(points(100, 0), points(90, 1))


@cache
def recorded() -> tuple[sg.Dictionary, sg.Dictionary, PairRecord]:
    """Return a pair and its record."""
    rows = oracles.related_decoders(np.random.default_rng(0), n=60, m=47, d=12, shared=30)
    a, b = (sg.Dictionary.from_decoder(x, latent_axis=0, name=name) for name, x in zip("ab", rows, strict=True))
    return a, b, _compare_pair(a, b, PARAMETERS)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: replace(r, mmcs=(5.0, 0.5)),
        lambda r: replace(r, mmcs=(float("nan"), r.mmcs[1])),
        lambda r: replace(r, mmcs=(r.mmcs[0], r.mmcs[1] + 0.01)),
        lambda r: replace(r, own=(0.5,)),
        lambda r: replace(r, own=(0.5, -3.0)),
        lambda r: replace(r, significant=(0.5, 1.5)),
        lambda r: replace(r, paired=r.paired + 0.01),
        lambda r: replace(r, similarity=np.full_like(r.similarity, 0.5), paired=0.5),
        lambda r: replace(r, partner=np.zeros_like(r.partner)),
        lambda r: replace(r, partner=r.partner + 1000),
        lambda r: replace(r, partner=r.partner[:-1]),
        lambda r: replace(r, histogram=r.histogram[:, :-1]),
        lambda r: replace(r, histogram=r.histogram * 2),
        lambda r: replace(r, significant_latents=r.significant_latents[:-1]),
        lambda r: replace(r, significant_latents=~r.significant_latents),
        lambda r: replace(r, confounds=(7,)),
        lambda r: replace(r, confounds=("x" * 100_000,)),
        lambda r: replace(r, chance=(float("nan"), r.chance[1])),
        lambda r: replace(r, explained=5.0),
        lambda r: replace(r, explained=float("nan")),
        lambda r: replace(r, explained="all"),
        lambda r: replace(r, certified_gap=-1.0),
        lambda r: replace(r, similarity=np.ma.array(r.similarity * 5, mask=True), paired=5.0),
        lambda r: vars(r),
        lambda r: None,
    ],
)
def test_a_wrong_record_of_a_pair_is_rejected(spoil):
    a, b, record = recorded()
    check_pair(record, a, b, PARAMETERS)
    with pytest.raises((ValueError, TypeError)):
        check_pair(spoil(record), a, b, PARAMETERS)


@pytest.mark.parametrize(
    "answer",
    [
        work.PairOutcome(None, None), work.PairOutcome(None, ("x",)), None, {"sweeps": ()},
        *(work.PairOutcome(None, (Entry("cpu", "why", "cpu", 1, seconds, redone),))
          for seconds, redone in ((float("nan"), 0), ("1", 0), (1.0, -3))),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_wrong_answer_about_a_pair_is_rejected(answer):
    check_pair_answer(work.PairOutcome(None, (Entry("cpu", "why", "cpu", 1, 0.5, 0),)))
    with pytest.raises(ClusterError, match="a Dask worker gave a wrong answer about a pair"):
        check_pair_answer(answer)


def test_seeds_stop_at_a_wrong_record(client, toy_pair, tmp_path, monkeypatch):
    from sae_geometry.comparisons import seeds

    monkeypatch.setattr(seeds, "_compare_pair", on_workers.record_of_five)
    with pytest.raises(ClusterError, match=r"a wrong answer for [ab] and [bc]: the record's mmcs is outside"):
        sg.seeds([*toy_pair, toy_pair[0].renamed("c")], executor=client, keep=tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_a_cluster_error_is_an_os_error():
    assert issubclass(ClusterError, OSError)
