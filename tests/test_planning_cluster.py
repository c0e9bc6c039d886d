"""The cost of a question on a cluster: worked by hand, and what must hold for any numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sae_geometry.cli import app
from sae_geometry.planning_cluster import cluster_plan

HOW = {"n_dictionaries": 2, "rate": 1e9, "bandwidth": 1e6}


def test_worked_by_hand():
    plan = cluster_plan([(100, 50)], 10, 2, workers=3, **HOW)
    assert plan.multiplications == 100 * 50 * 10
    assert plan.bytes_sent == 3 * 4 * 10 * 150
    assert plan.bytes_back == 12 * 2 * (100 + 50 * 12)
    assert plan.seconds_arithmetic == pytest.approx(50_000 / 3e9)
    assert plan.seconds_network == pytest.approx((18_000 + 16_800) / 1e6)
    assert (plan.limited_by, plan.most_workers) == ("network", 1)


@given(
    n=st.integers(1, 10**6), m=st.integers(1, 10**6), d=st.integers(1, 10**4), workers=st.integers(1, 1000),
    rate=st.floats(1e6, 1e15), bandwidth=st.floats(1e3, 1e12), runs=st.integers(2, 5),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_crossing_is_where_the_network_overtakes(n, m, d, workers, rate, bandwidth, runs):
    def at(w: int):
        return cluster_plan([(n, m)] * runs, d, 1, n_dictionaries=runs, workers=w, rate=rate, bandwidth=bandwidth)

    plan = at(workers)
    assert at(workers + 1).seconds_network >= plan.seconds_network
    assert at(workers + 1).seconds_arithmetic < plan.seconds_arithmetic
    if plan.most_workers is None:
        assert plan.limited_by == "arithmetic"
    else:
        assert at(plan.most_workers).limited_by == "network"
        if plan.most_workers > 1:
            assert at(plan.most_workers - 1).limited_by == "arithmetic"


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"rate": 0.0}, {"bandwidth": -1.0}])
def test_wrong_numbers_are_told(wrong):
    with pytest.raises(ValueError, match="above zero"):
        cluster_plan([(1, 1)], 1, 1, **{**HOW, "workers": 1, **wrong})


def test_the_command():
    arguments = ["estimate", "demo:local-narrow-seed0", "demo:local-narrow-seed0", "-q", "--workers", "8"]
    told = CliRunner().invoke(app, [*arguments, "--bandwidth", "1"])
    assert told.exit_code == 0, told.output
    assert "8 workers (by a model" in told.stdout
    assert "limited by" in told.stdout
    made = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert made["cluster"]["n_passes"] == 1
    assert made["cluster"]["bytes_sent"] == 8 * 4 * 576 * 2 * 488
