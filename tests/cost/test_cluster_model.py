"""Tests of the cost model of a cluster: examples by hand, and invariants for any numbers."""

from __future__ import annotations

import json
from itertools import combinations
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sae_geometry.cli import app
from sae_geometry.cost.cluster_model import KEPT, Pass, cluster_plan
from sae_geometry.kernels.tiles import LEAST, cut, pieces_for

HOW = {"n_dictionaries": 2, "rate": 1e9, "bandwidth": 1e6}


def test_worked_by_hand():
    plan = cluster_plan([Pass(0, 1, 100, 50, 2)], 10, workers=3, **HOW)
    assert plan.multiplications == 100 * 50 * 10
    assert plan.bytes_sent == 3 * 4 * 10 * 150
    assert plan.bytes_back == 12 * 2 * (100 + 50), "too few rows for more than one tile"
    assert plan.seconds_arithmetic == pytest.approx(50_000 / 1e9)
    assert plan.seconds_network == pytest.approx((18_000 + 3_600) / 1e6)
    assert (plan.limited_by, plan.most_workers) == ("network", 1)


def test_within_one_dictionary_is_half_the_work_and_one_operand():
    plan = cluster_plan([Pass(0, None, 1000, 1000)], 10, workers=1, **HOW)
    assert plan.multiplications == 1000 * 1000 * 10 / 2
    assert plan.bytes_sent == 4 * 10 * 1000
    assert plan.bytes_back == 12 * 1000
    four = cluster_plan([Pass(0, None, 1000, 1000)], 10, workers=4, **HOW)
    assert four.bytes_back == 12 * 1000 * 3, "four tiles need three blocks per side, and each row is in three tiles"


def test_a_side_that_a_worker_still_has_is_not_sent_again():
    triangle = [Pass(0, 1, 100, 100), Pass(0, 2, 100, 100), Pass(1, 2, 100, 100)]
    assert cluster_plan(triangle, 10, workers=1, **HOW).bytes_sent == 3 * 4000
    wide = [Pass(p.a, p.b, 4096, 4096) for p in triangle]
    plan = cluster_plan(wide, KEPT // (4 * 4096), workers=1, **HOW)  # One side fills the worker's cache.
    assert plan.bytes_sent == 4 * KEPT, "operand 1 should have been evicted before its second use"
    assert 2 * KEPT < plan.memory_a_worker < 3 * KEPT, "the oldest operand should be evicted before the third arrives"


def test_pairs_go_whole_where_there_are_as_many_as_workers():
    pairs = [Pass(i, j, 100, 100) for i, j in combinations(range(4), 2)]

    def at(workers: int):
        return cluster_plan(pairs, 10, workers=workers, whole_pairs=6, **HOW)

    assert at(6).bytes_back == 6 * 12 * 200
    assert at(7).bytes_back == 6 * 12 * (100 + 100), "fewer pairs than workers should be cut into tiles if large enough"
    rounds = [at(w).seconds_arithmetic * 1e9 / (100 * 100 * 10) for w in (1, 2, 3, 4, 5, 6, 12)]
    assert rounds == pytest.approx([6, 3, 2, 2, 2, 1, 6])


@pytest.mark.parametrize("latents", [100, 2_000_000])
def test_the_runner_sends_what_the_model_says(latents, monkeypatch):
    future = Mock(spec=pytest.importorskip("distributed").Future, status="finished")
    from sae_geometry.distributed import operands as holding

    assert KEPT == holding.KEPT
    sent = []

    class Client:
        scheduler = None

        def scatter(self, data, broadcast):
            sent.append(next(iter(data.values())).nbytes)
            return dict.fromkeys(data, future)

    monkeypatch.setattr(holding, "KEPT", KEPT * 100 // latents)
    passes = [Pass(i, j, latents, latents) for i, j in combinations(range(5), 2)]
    held = holding.Held(Client())
    sides = [torch.full((100, 60), float(i)) for i in range(5)]
    for p in passes:
        held.array(sides[p.a], 2)()
        held.array(sides[p.b], 2)()
    model = cluster_plan(passes, 60, workers=1, **HOW).bytes_sent
    assert sum(sent) * latents / 100 == model
    assert (len(sent) == 5) == (latents == 100)


@given(
    n=st.integers(1, 10**6), m=st.integers(1, 10**6), d=st.integers(1, 10**4), workers=st.integers(1, 1000),
    rate=st.floats(1e6, 1e15), bandwidth=st.floats(1e3, 1e12), runs=st.integers(2, 5),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_crossing_is_where_the_network_overtakes(n, m, d, workers, rate, bandwidth, runs):
    def at(w: int):
        return cluster_plan(
            [Pass(0, 1, n, m)] * runs, d, n_dictionaries=runs, workers=w, rate=rate, bandwidth=bandwidth
        )

    plan = at(workers)
    assert at(workers + 1).seconds_network >= plan.seconds_network
    assert at(workers + 1).seconds_arithmetic <= plan.seconds_arithmetic
    if plan.most_workers is None:
        assert plan.limited_by == "arithmetic"
    else:
        assert at(plan.most_workers).limited_by == "network"
        if plan.most_workers > 1:
            assert at(plan.most_workers - 1).limited_by == "arithmetic"


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"rate": 0.0}, {"bandwidth": -1.0}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="above zero"):
        cluster_plan([Pass(0, 1, 1, 1)], 1, **{**HOW, "workers": 1, **wrong})


def test_the_command():
    arguments = ["estimate", "demo:local-narrow-seed0", "demo:local-narrow-seed0", "-q", "--workers", "8"]
    told = CliRunner().invoke(app, [*arguments, "--bandwidth", "1"])
    assert told.exit_code == 0, told.output
    assert "8 workers (from a model" in told.stdout
    assert "limited by" in told.stdout
    made = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    # the comparison, each dictionary within itself, three turned controls, and the two halves
    assert made["cluster"]["n_passes"] == 8
    assert made["cluster"]["bytes_sent"] == 8 * 4 * 576 * 2 * (512 + 512)  # The halves are sent too.


@pytest.mark.parametrize("within", [False, True])
@given(n=st.integers(1, 20_000), workers=st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_model_cuts_as_the_runner_does(within, n, workers):
    made = cut(n, None if within else 5, pieces_for(n, workers), least=LEAST)
    plan = cluster_plan([Pass(0, None if within else 1, n, n if within else 5)], 1, workers=workers, **HOW)
    assert plan.seconds_arithmetic == pytest.approx(plan.multiplications / 1e9 / min(workers, len(made)))
