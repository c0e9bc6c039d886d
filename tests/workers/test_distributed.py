"""Tests on a real cluster of processes, whose answers must be bit-identical to those of one process."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from typing import Any

import numpy as np
import on_workers
import pytest
import safetensors.numpy
import torch
from cluster_cases import TINY, assert_same, dask_runner, points, workers
from simulated_gpu import simulated_gpu

import sae_geometry as sg
from sae_geometry.comparisons.seeds import _compare_pair
from sae_geometry.distributed import spread
from sae_geometry.distributed import worker as work
from sae_geometry.distributed.worker import blas_threads
from sae_geometry.embedding.neighbors import exact_neighbors, joint_neighbors
from sae_geometry.kernels.ledger import entries, ledger
from sae_geometry.kernels.settings import changed
from sae_geometry.kernels.sweep import sweep
from sae_geometry.pairwise.pair_record import PairParameters

PARAMETERS = PairParameters("greedy", "decoder", True, 0.7)


def scaled(client: Any, n: int) -> None:
    """Wait until the cluster has exactly n workers, after retiring the others."""
    addresses = list(workers(client))
    if len(addresses) > n:
        client.retire_workers(addresses[n:], close_workers=True)
    deadline = time.monotonic() + 200
    while len(workers(client)) != n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def spied(runner, reports: list) -> object:
    def offered(task, screen):
        found = runner(task, screen)
        reports.append(found if found is None else found.report.why)
        return found

    return offered


@pytest.mark.parametrize("n_workers", [2, 1])
def test_bit_identical_for_any_number_of_workers(client, n_workers, toy_pair):
    scaled(client, n_workers)
    runner = dask_runner(client)
    a, b = points(101, 0), points(60, 1)
    bias = torch.linspace(-0.3, 0.2, 60, dtype=torch.float64)
    cases = (
        (b, {"k": 1}),
        (b, {"k": 7, "absolute": True}),
        (b, {"k": 5, "columns": False, "column_bias": bias}),
        (b, {"k": 5, "columns": False, "column_bias": bias, "absolute": True}),
        (None, {"k": 6}),
        (None, {"k": 3, "absolute": True}),
        (a[:2], {"k": 4}),
    )
    for others, how in cases:
        seen: list[float] = []
        with changed(runner=runner):
            there = sweep(a, others, progress=seen.append, **how)
        assert_same(there, sweep(a, others, **how))
        assert f"on {n_workers} Dask worker" in there.report.why
        assert seen[-1] == 1.0
        assert seen == sorted(seen)
    reports: list = []
    with changed(runner=spied(runner, reports)):
        for matching in ("greedy", "optimal"):
            there = sg.compare(*toy_pair, matching, turns=0)
            with changed(runner=None):
                here = sg.compare(*toy_pair, matching, turns=0)
            assert _answer(there) == _answer(here)
    assert len(reports) > 3
    assert all(f"on {n_workers} Dask worker" in why for why in reports)


def _answer(c: sg.Comparison) -> str:
    """Return the summary without how the sweep was run and how long the matching took."""
    summary = {k: v for k, v in c.summary().items() if k != "sweep"}
    for holder in (summary, summary.get("one_to_one", {})):
        if holder.get("certificate"):
            holder["certificate"] = {k: v for k, v in holder["certificate"].items() if "seconds" not in k}
    return json.dumps(summary)


def test_neighbors_of_a_umap(client):
    parts = [points(120, 3), points(70, 4)]
    runner = dask_runner(client)
    with changed(runner=runner):
        joint, single = joint_neighbors(parts, 12)[0], exact_neighbors(parts[0], 9)
    here = joint_neighbors(parts, 12)[0]
    np.testing.assert_array_equal(joint.indices, here.indices)
    np.testing.assert_array_equal(joint.distances, here.distances)
    np.testing.assert_array_equal(single.indices, exact_neighbors(parts[0], 9).indices)


def test_executor_of_the_public_functions(client, toy_pair, monkeypatch):
    from sae_geometry.distributed.dask_runner import DaskRunner

    for name, value in TINY.items():
        monkeypatch.setattr(DaskRunner, name, value)
    c = sg.compare(*toy_pair, turns=2, executor=client)
    assert "Dask worker" in c.swept.report.why
    assert _answer(c) == _answer(sg.compare(*toy_pair, turns=2))
    e = sg.umap(list(toy_pair), n_epochs=5, executor=client)
    assert all("Dask worker" in s.report.why for s in e.swept.values())
    np.testing.assert_array_equal(e.coords, sg.umap(list(toy_pair), n_epochs=5).coords)
    there, here = sg.match(*toy_pair, executor=client).record, sg.match(*toy_pair).record
    assert there["matchings"]["decoder_signed"]["pairs"] == here["matchings"]["decoder_signed"]["pairs"]
    assert there["pw_mcc"] == here["pw_mcc"]


def test_pairs_of_seeds_go_whole_and_are_kept(client, tmp_path, rng):
    shared = rng.standard_normal((20, 6))
    runs = [
        sg.Dictionary.from_decoder(
            np.vstack([shared + rng.standard_normal(shared.shape) * 0.3, rng.standard_normal((5, 6))]),
            latent_axis=0, name=f"r{k}", metadata={"kind": "ab"[k % 2]},
        )
        for k in range(4)
    ]  # fmt: skip
    there = sg.seeds(runs, executor=client, keep=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 6
    here = sg.seeds(runs)
    assert json.dumps(there.summary()) == json.dumps(here.summary())
    assert there.to_pandas().equals(here.to_pandas())
    assert list(there.pairs) == list(here.pairs)
    with sg.settings(executor=client):
        done = dict(spread(on_workers.where, runs, list(here.pairs), None))
    assert os.getpid() not in {pid for pid, _ in done.values()}
    assert {threads for _, threads in done.values()} == {blas_threads()}, "sums should use the same number of threads"


@pytest.mark.parametrize(
    "adds_up", [lambda: {"process": os.getpid()}, lambda: {"processor": "another"}], ids=["seen", "found out there"]
)
def test_workers_with_other_arithmetic_get_no_pairs(client, monkeypatch, toy_pair, adds_up):
    """Detect such workers before any pair is sent or, for workers that joined later, when a pair arrives."""
    from sae_geometry.distributed import dask_runner as module

    monkeypatch.setattr(module, "arithmetic", adds_up)
    with changed(runner=dask_runner(client)):
        done = list(spread(on_workers.where, list(toy_pair), [(0, 1)] * 3, None))
    assert len(done) == 3
    assert {pid for _, (pid, _) in done} == {os.getpid()}


def test_a_ceiling_holds_on_workers(client, toy_pair):
    with changed(runner=dask_runner(client)), sg.settings(memory="64MB"):
        (_, told), *_ = spread(on_workers.terms, list(toy_pair), [(0, 1)] * 3, None)
        assert sweep(points(100, 0), points(90, 1)).report.memory == 64 << 20
    assert told[0] != os.getpid()
    assert told[1:] == (64 << 20, "cpu")


def test_workers_of_many_threads_give_way_to_a_ceiling(client, workers_do):
    workers_do(on_workers.on_64_threads)
    a, b = points(2000, 0), points(2000, 1)
    truth = sweep(a, b, 2)
    with sg.settings(memory="4MB"):
        with pytest.raises(ValueError, match="a sweep of this size needs 6 MiB in addition to its inputs"):
            sweep(a, b, 2, threads=64)
        with changed(runner=dask_runner(client, worth=10_000)):
            there = sweep(a, b, 2, threads=1)
            assert_same(sweep(a, b, 2, threads=64), truth)  # Tiles can do what this process would refuse.
    assert_same(there, truth)
    assert 1 < there.report.threads < 64
    assert there.report.memory == 4 << 20


def test_results_too_large_for_the_ceiling_here_are_refused(client):
    a, b = points(2000, 0), points(2000, 1)
    with (
        sg.settings(memory="4MB"),
        changed(runner=dask_runner(client)),
        pytest.raises(ValueError, match=r"the memory limit is 4.0 MiB; raise it with settings\(memory='\d+MB'\)"),
    ):
        sweep(a, b, 64)


@pytest.mark.parametrize(("device", "there"), [("auto", "cuda:0"), ("cpu", "cpu")])
def test_workers_use_their_gpu_by_default(client, monkeypatch, toy_pair, device, there):
    from sae_geometry.distributed import dask_runner as module

    for name in ("sweep_tile", "call_with_pair"):
        monkeypatch.setattr(module, name, partial(on_workers.with_gpu, getattr(work, name)))
    a, b = points(60, 0), points(50, 1)
    with changed(runner=dask_runner(client, device=device)), ledger():
        found = sweep(a, b, 2)
        (_, pair), *_ = spread(_compare_pair, list(toy_pair), [(0, 1)] * 3, PARAMETERS)
        swept = entries()
    assert found.report.device == there
    assert_same(found, sweep(a, b, 2))
    of_pairs = {e.device for e in swept if e.why.startswith("in whole pairs on Dask workers")}
    assert of_pairs == {there}
    assert str(pair) == str(_compare_pair(*toy_pair, PARAMETERS))


def test_what_is_on_a_gpu_here_is_done_on_workers_without_one(client):
    a, b = points(60, 0), points(50, 1)
    with simulated_gpu(), changed(runner=dask_runner(client)):
        found = sweep(a.to("cuda"), b.to("cuda"), 2)
        assert found.rows.index.is_cuda
        assert torch.equal(found.rows.index.cpu(), sweep(a, b, 2).rows.index)
    assert found.report.device == "cpu"
    assert "on the CPU of workers that have no GPU" in found.report.why


def test_sweeps_of_whole_pairs_are_in_the_ledger(client, rng):
    runs = [sg.Dictionary.from_decoder(rng.standard_normal((20, 6)), latent_axis=0, name=f"r{k}") for k in range(3)]

    def swept(executor) -> dict[tuple[str, str], int]:
        with ledger():
            sg.seeds(runs, matching="mutual", executor=executor)
            return {(e.screen, e.why.removeprefix("in whole pairs on Dask workers; ")): e.sweeps for e in entries()}

    here, there = swept(None), swept(client)
    assert list(there) == list(here)
    assert all(there[how] >= n >= 3 for how, n in here.items()), "workers may have simulated the null one by one"


def test_workers_load_what_they_can_and_are_sent_the_rest(client, tmp_path, monkeypatch, rng):
    from sae_geometry.distributed import operands as holding

    monkeypatch.chdir(tmp_path)  # The workers run in another folder.
    for name in ("kept", "changed", "gone"):
        weights = rng.standard_normal((30, 6)).astype(np.float32)
        safetensors.numpy.save_file(
            {"decoder.weight": weights.T.copy(), "encoder.weight": weights}, f"{name}.safetensors"
        )
    runs = [
        *(sg.load(f"{name}.safetensors") for name in ("kept", "changed", "gone")),
        sg.load("demo:local-narrow-seed0"),
    ]
    safetensors.numpy.save_file({"decoder.weight": weights.T.copy(), "encoder.weight": weights}, "changed.safetensors")
    (tmp_path / "gone.safetensors").unlink()
    sent: list[str] = []
    send = holding.Held._sent

    def noted(held, name, data):
        sent.append(name)
        return send(held, name, data)

    monkeypatch.setattr(holding.Held, "_sent", noted)
    todo = [(0, 1), (1, 2), (2, 3), (3, 0)]
    with sg.settings(offline=True), changed(runner=dask_runner(client, load=runs)):
        done = dict(spread(on_workers.fingerprints, runs, todo, None))
        sweep(runs[0].directions, k=2)
    assert done == {(i, j): (runs[i].fingerprint, runs[j].fingerprint) for i, j in todo}
    travelled = {d.name for d in runs if holding._identity(d.directions.numpy())[0] in sent}
    assert travelled == {"changed", "gone"}


def test_what_another_worker_cannot_load_again_is_sent(client, workers_do, tmp_path, demo):
    (tmp_path / "marker").touch()
    workers_do(partial(on_workers.not_loaded_at_first, tmp_path / "marker"))
    a = demo["local-narrow-seed0"]
    with changed(runner=dask_runner(client, load=[a])):
        assert_same(sweep(a.directions, k=2), sweep(a.directions, k=2, blocks=(64, 64)))
    assert not (tmp_path / "marker").exists()


def test_a_worker_out_of_memory_gets_smaller_tiles(client, workers_do):
    workers_do(on_workers.too_much)
    a, b = points(500, 0), points(90, 1)
    with changed(runner=dask_runner(client)):
        there = sweep(a, b, 2)
        assert int(there.report.why.split()[0]) >= 500 / 40
        assert_same(there, sweep(a[:500], b, 2, blocks=(128, 128)))
        with (
            pytest.raises(MemoryError, match="give the workers more memory"),
            changed(runner=dask_runner(client, least=300)),
        ):
            sweep(a, b, 2)


def test_torch_that_is_refused_memory_is_out_of_memory(client, workers_do):
    workers_do(on_workers.torch_is_refused_memory)
    a, b = points(200, 0), points(90, 1)
    with changed(runner=dask_runner(client, worth=10_000)):
        there = sweep(a, b, 2)
    assert int(there.report.why.split()[0]) >= 200 / 40
    assert_same(there, sweep(a, b, 2))


def test_an_error_on_a_worker_is_raised_here(client, workers_do):
    workers_do(on_workers.fails)
    with pytest.raises(ZeroDivisionError, match="as it is"), changed(runner=dask_runner(client)):
        sweep(points(100, 0), points(90, 1))
