"""Tests on a real cluster of processes: its answers are bit-identical to those of one process, whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import on_workers
import oracles
import pytest
import safetensors.numpy
import torch
from simulated_gpu import simulated_gpu
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.comparisons.seeds import _compare_pair
from sae_geometry.distributed import spread
from sae_geometry.distributed import worker as work
from sae_geometry.distributed.answer_check import check_pair_answer, check_tile
from sae_geometry.distributed.client import _opened
from sae_geometry.distributed.errors import ClusterError
from sae_geometry.distributed.worker import blas_threads
from sae_geometry.embedding.neighbors import exact_neighbors, joint_neighbors
from sae_geometry.kernels.ledger import Entry, entries, ledger
from sae_geometry.kernels.settings import changed, current
from sae_geometry.kernels.sweep import _task, cpu_threads, sweep
from sae_geometry.kernels.tiles import Tile
from sae_geometry.kernels.types import Sweep
from sae_geometry.pairwise.checkpoint import PairParameters, PairRecord, check_pair

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
psutil = pytest.importorskip("psutil")
PARAMETERS = PairParameters("greedy", "decoder", True, 0.7)


@contextlib.contextmanager
def local_workers(n: int) -> Iterator[distributed.Client]:
    """Start worker processes of one thread each, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patched, contextlib.ExitStack() as stack:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patched.setenv(name, "7")
        client = stack.enter_context(_opened(f"local:{n}"))
        client.wait_for_workers(n, timeout=200)
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """Start two workers, which the tests at the end kill: Dask may give up a worker that dies while it starts."""
    with local_workers(2) as client:
        yield client


@pytest.fixture
def workers_do(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Return a function that replaces the sweep of a tile on workers."""
    from sae_geometry.distributed import dask_runner

    return partial(monkeypatch.setattr, dask_runner, "sweep_tile")


def workers(client: distributed.Client) -> dict[str, int]:
    return client.nthreads()


def scaled(client: distributed.Client, n: int) -> None:
    """Exactly n workers."""
    addresses = list(workers(client))
    if len(addresses) > n:
        client.retire_workers(addresses[n:], close_workers=True)
    deadline = time.monotonic() + 200
    while len(workers(client)) != n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


TINY = {"smallest": 0.0, "worth": 0, "least": 16}


def dask_runner(client: distributed.Client, *, device="auto", load=(), **limits: float):
    from sae_geometry.distributed.dask_runner import DaskRunner

    runner = DaskRunner(client, device=device, load=load)
    vars(runner).update(TINY | limits)
    return runner


def points(n: int, seed: int, d: int = 24) -> torch.Tensor:
    x = torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)
    x[n // 2] = x[n // 3]  # ties
    x[n - 1] = -x[0]
    return x


def assert_same(x: Sweep, y: Sweep) -> None:
    assert (x.cols is None) == (y.cols is None)
    for one, other in [(x.rows, y.rows)] + ([] if x.cols is None or y.cols is None else [(x.cols, y.cols)]):
        for name in ("score", "cosine", "index"):
            np.testing.assert_array_equal(getattr(one, name).numpy(), getattr(other, name).numpy())


def spied(runner, reports: list) -> object:
    def offered(task, screen):
        found = runner(task, screen)
        reports.append(found if found is None else found.report.why)
        return found

    return offered


@pytest.mark.parametrize("n_workers", [2, 1])
def test_equal_to_the_bit_for_any_number_of_workers(client, n_workers, toy_pair):
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
    assert {threads for _, threads in done.values()} == {blas_threads()}, "sums are made by as many threads"


@pytest.mark.parametrize(
    "adds_up", [lambda: {"process": os.getpid()}, lambda: {"processor": "another"}], ids=["seen", "found out there"]
)
def test_workers_that_add_up_otherwise_get_no_pairs(client, monkeypatch, toy_pair, adds_up):
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
        with pytest.raises(ValueError, match="a sweep of this size takes 6 MiB above its inputs"):
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
        pytest.raises(ValueError, match=r"the memory ceiling is 4.0 MiB: raise it with settings\(memory='\d+MB'\)"),
    ):
        sweep(a, b, 64)


@pytest.mark.parametrize(("device", "there"), [("auto", "cuda:0"), ("cpu", "cpu")])
def test_workers_use_their_gpu_unless_told_not_to(client, monkeypatch, toy_pair, device, there):
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
    assert "on a GPU here, on the CPU where a worker has none" in found.report.why


def test_sweeps_of_whole_pairs_are_in_the_ledger(client, rng):
    runs = [sg.Dictionary.from_decoder(rng.standard_normal((20, 6)), latent_axis=0, name=f"r{k}") for k in range(3)]

    def swept(executor) -> dict[tuple[str, str], int]:
        with ledger():
            sg.seeds(runs, matching="mutual", executor=executor)
            return {(e.screen, e.why.removeprefix("in whole pairs on Dask workers; ")): e.sweeps for e in entries()}

    here, there = swept(None), swept(client)
    assert list(there) == list(here)
    assert all(there[how] >= n >= 3 for how, n in here.items()), "workers may have simulated chance one by one"


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


def test_the_scheduler_lost_is_one_sentence_and_finished_pairs_are_kept(tmp_path, rng, monkeypatch):
    """Kill a scheduler in a subprocess as the first pair is finished."""
    from sae_geometry.distributed import scheduler as module

    monkeypatch.setattr(module, "_GRACE", 1)
    code = (
        "import time, distributed\n"
        "if __name__ == '__main__':\n"
        "    with distributed.LocalCluster(1, threads_per_worker=1, dashboard_address='127.0.0.1:0') as c:\n"
        "        print(c.scheduler_address, flush=True)\n        time.sleep(120)\n"
    )
    script = tmp_path / "serve.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        for k in range(12):
            np.save(tmp_path / f"r{k}.npy", rng.standard_normal((12, 5)))
        kept = tmp_path / "out.pairs"

        def kill_when_begun() -> None:
            while not list(kept.glob("[!.]*.npz")):
                time.sleep(0.005)
            server.kill()

        threading.Thread(target=kill_when_begun, daemon=True).start()
        arguments = ["seeds", *(str(tmp_path / f"r{k}.npy") for k in range(12)), "-o", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*arguments, "--dask", address])
        server.kill()
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert errors == [f"error: the Dask scheduler at {address} was lost; start it again and run the same command"]
    assert "saved in" in result.stderr
    assert "finished pair" in result.stderr
    assert list(kept.glob("[!.]*.npz"))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("kill", "sent", "code", "said"),
    [
        pytest.param(os.killpg, signal.SIGINT, 130, "error: stopped; no results folder is half-written", id="ctrl-c"),
        pytest.param(
            os.kill, signal.SIGTERM, 143, "error: stopped by SIGTERM; no results folder is half-written", id="sigterm"
        ),
        pytest.param(os.kill, signal.SIGKILL, -9, None, id="sigkill"),
    ],
)
def test_a_signal_ends_client_and_workers(tmp_path, rng, kill, sent, code, said):
    """Ctrl-C reaches all processes, as from a terminal: one sentence, finished pairs are kept, no process is left."""
    for k in range(12):
        np.save(tmp_path / f"r{k}.npy", rng.standard_normal((12, 5)))
    command = [sys.executable, "-m", "sae_geometry", "seeds", *(f"./r{k}.npy" for k in range(12)), "-o", "out"]
    with subprocess.Popen(
        [*command, "--dask", "local:1"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        while not list(tmp_path.glob("out.pairs/[!.]*.npz")):
            assert program.poll() is None, program.communicate()[1]
            time.sleep(0.005)
        kill(program.pid, sent)
        _, told = program.communicate(timeout=200)
    assert program.returncode == code
    assert "Traceback" not in told
    if said is not None:
        assert told.splitlines()[-1] == said
        assert "saved in out.pairs" in told
    assert list(tmp_path.glob("out.pairs/[!.]*.npz"))
    assert not (tmp_path / "out").exists()
    _nobody_is_left_of(program.pid)


def test_workers_end_with_a_process_that_is_killed():
    code = (
        "import time\nfrom sae_geometry.distributed.local_cluster import local_cluster\n"
        "with local_cluster(1, 1):\n    print(flush=True)\n    time.sleep(200)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "\n"
        assert len(_left_of(program.pid)) >= 3, "this process, the scheduler's and the worker"
        program.kill()
    _nobody_is_left_of(program.pid)


def _left_of(session: int) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _session(process) == session]


def _nobody_is_left_of(session: int) -> None:
    deadline = time.monotonic() + 200
    while _left_of(session):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.1)


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:  # The process has just ended.
        return None


def test_local_workers_share_the_threads_that_this_process_has(client):
    assert set(client.run(torch.get_num_threads).values()) == {max(1, cpu_threads() // 2)}


def test_a_cluster_left_without_workers_is_one_sentence(monkeypatch):
    from sae_geometry.distributed import scheduler as cluster

    monkeypatch.setattr(cluster, "_LOOK", 0.01)
    monkeypatch.setattr(cluster, "_NO_WORKERS", 0.05)
    there = SimpleNamespace(address="tcp://there:1", identity=None)
    deserted = cluster.Cluster(SimpleNamespace(scheduler=there, nthreads=lambda **_: {}))
    with pytest.raises(ClusterError, match="no worker is left at tcp://there:1; start some and run the same command"):
        deserted._next(SimpleQueue())

    def silent(*_, callback_timeout):
        raise TimeoutError(f"no answer in {callback_timeout} s")

    stopped = cluster.Cluster(SimpleNamespace(scheduler=there, nthreads=silent, sync=silent, status="running"))
    with pytest.raises(ClusterError, match="the Dask scheduler at tcp://there:1 was lost"):
        stopped._next(SimpleQueue())


def test_what_cannot_be_sent_is_told_as_it_is(client):
    from sae_geometry.distributed.scheduler import Cluster, Job

    def submit(piece):
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        list(Cluster(client).each([1], Job(submit, lambda piece: [], lambda error: None)))


@pytest.mark.parametrize("command", ["compare", "match", "seeds", "umap"])
def test_the_commands_pass_on_device_and_what_to_load(client, tmp_path, monkeypatch, command):
    from sae_geometry.distributed import dask_runner

    made: list[dict] = []

    def noted(client, **how):
        made.append(how | {"offline": current().offline})
        raise ClusterError("that is enough")

    monkeypatch.setattr(dask_runner, "DaskRunner", noted)
    monkeypatch.chdir(tmp_path)
    typed = [command, *["demo:local-narrow-seed0"] * 2, "--device", "cpu", "--offline", "--dask-load"]
    certificates = {
        f"distributed.comm.tls.{key}": str(tmp_path / key)
        for key in ("ca-file", "client.cert", "client.key")
    }  # fmt: skip
    for key, path in certificates.items():
        Path(path).write_text(getattr(client.security, "tls_client_key" if key.endswith("key") else "tls_client_cert"))
    with dask.config.set(certificates):
        result = CliRunner().invoke(app, [*typed, "--dask", client.scheduler.address])
    assert "that is enough" in result.stderr
    [how] = made
    assert (how["device"], how["offline"]) == ("cpu", True)
    assert [d.address for d in how["load"]] == ["demo:local-narrow-seed0"] * 2
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert "add --dask, or leave it out" in result.stderr


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("local", 2, 'a Dask executor is "local:N" or a scheduler\'s address'),
        ("local:0", 2, "got 'local:0'"),
        ("tcp://127.0.0.1:9", 1, "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tls://127.0.0.1:9", 2, "a tls:// scheduler needs distributed.comm.tls.ca-file"),
    ],
)
def test_wrong_addresses_are_told(where, code, said, monkeypatch, tmp_path):
    from sae_geometry.distributed import client as opening

    monkeypatch.setattr(opening, "_WAIT", 1)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["compare", "demo:local-narrow-seed0", "demo:local-seed0", "--dask", where])
    assert result.exit_code == code
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_executor_is_told(toy_pair):
    with pytest.raises(ValueError, match=r"executor is a distributed\.Client"):
        sg.compare(*toy_pair, executor=7)


def _greeting(port: int, context: ssl.SSLContext | None) -> bytes:
    """Return what a port sends to a new connection; a Dask server greets clients that it admits."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as plain:
        try:
            said = plain if context is None else context.wrap_socket(plain)
            with said:
                return said.recv(64)
        except OSError:  # The connection was refused or closed, or nothing was sent within a second.
            return b""


def test_local_workers_let_in_only_who_has_their_certificate(client):
    """Check every port that they listen on, because other accounts of the machine can reach all of them."""
    address = client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    ports = {int(there.rpartition(":")[2]) for there in [address, *workers(client)]}
    pids = {os.getpid(), *client.run(os.getpid).values()}
    pids |= {parent.pid for pid in list(pids) for parent in psutil.Process(pid).parents()}
    listening = {
        c.laddr.port for pid in pids - {os.getpid()} if pid > 1 and psutil.pid_exists(pid)
        for c in psutil.Process(pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }  # fmt: skip
    assert ports <= listening
    stranger = distributed.Security.temporary().get_connection_args("client")["ssl_context"]
    stranger.verify_mode = ssl.CERT_NONE  # This client accepts any certificate.
    assert _greeting(min(ports), client.security.get_connection_args("client")["ssl_context"])
    with ThreadPoolExecutor(8) as at_once:
        assert all(at_once.map(partial(_is_closed, stranger=stranger), listening & {*ports, *range(1024, 65536)}))


def _is_closed(port: int, stranger: ssl.SSLContext) -> bool:
    """Return whether a port sends nothing without a certificate, with a wrong one, or to an HTTP request."""
    assert not _greeting(port, None)
    assert not _greeting(port, stranger)
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(asked):
        asked.request("GET", "/json/identity.json")
        assert asked.getresponse().status == 404
    return True


def test_the_environment_is_as_it_was(client):
    assert "PYTHONHASHSEED" not in os.environ


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
def test_a_wrong_answer_is_not_believed(spoil, kind):
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
    with pytest.raises(ClusterError, match="nothing of it was saved"), changed(runner=dask_runner(client)):
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
def test_a_wrong_record_of_a_pair_is_not_believed(spoil):
    a, b, record = recorded()
    check_pair(record, a, b, PARAMETERS)
    with pytest.raises((ValueError, TypeError)):
        check_pair(spoil(record), a, b, PARAMETERS)


@pytest.mark.parametrize(
    "answer",
    [
        work.PairAnswer(None, None), work.PairAnswer(None, ("x",)), None, {"sweeps": ()},
        *(work.PairAnswer(None, (Entry("cpu", "why", "cpu", 1, seconds, redone),))
          for seconds, redone in ((float("nan"), 0), ("1", 0), (1.0, -3))),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_wrong_account_of_a_pair_is_not_believed(answer):
    check_pair_answer(work.PairAnswer(None, (Entry("cpu", "why", "cpu", 1, 0.5, 0),)))
    with pytest.raises(ClusterError, match="a Dask worker gave a wrong answer about a pair"):
        check_pair_answer(answer)


def test_seeds_stop_at_a_wrong_record(client, toy_pair, tmp_path, monkeypatch):
    from sae_geometry.comparisons import seeds

    monkeypatch.setattr(seeds, "_compare_pair", on_workers.record_of_five)
    with pytest.raises(ClusterError, match=r"a wrong answer for [ab] and [bc]: its mmcs is not within"):
        sg.seeds([*toy_pair, toy_pair[0].renamed("c")], executor=client, keep=tmp_path)
    assert not list(tmp_path.glob("*.npz"))


def test_a_cluster_error_is_an_os_error():
    assert issubclass(ClusterError, OSError)


# The tests below kill workers.


def test_a_worker_killed_in_the_middle_costs_its_tiles_only(client, workers_do):
    workers_do(on_workers.slowly)
    runner = dask_runner(client)
    a, b = points(600, 0, 64), points(400, 1, 64)
    truth = sweep(a, b, 3)
    pids = client.run(os.getpid)
    killed: list[str] = []

    def kill_one_at_work(share: float) -> None:
        busy = sorted(address for address, tasks in client.processing().items() if tasks)
        if not killed and busy:
            killed.append(busy[0])
            os.kill(pids[busy[0]], signal.SIGKILL)

    with changed(runner=runner):
        there = sweep(a, b, 3, progress=kill_one_at_work)
    assert killed, "a worker was killed with tiles in its hands"
    assert killed[0] not in workers(client)
    assert_same(there, truth)


def test_all_workers_killed_their_data_is_sent_again(client):
    runner = dask_runner(client)
    a, b = points(3000, 0, 64), points(2000, 1, 64)
    with changed(runner=runner):
        first = sweep(a, b, 3)
        for pid in set(client.run(os.getpid).values()):
            os.kill(pid, signal.SIGKILL)
        assert_same(sweep(a, b, 3), first)


def test_a_tile_that_kills_its_workers_is_cut(client, workers_do):
    workers_do(on_workers.dies_of_many_rows)
    a, b = points(1000, 0), points(90, 1)
    before = set(client.run(os.getpid).values())
    with changed(runner=dask_runner(client, worth=10_000, least=100)):
        there = sweep(a, b, 2)
    assert int(there.report.why.split()[0]) >= 4
    assert before - set(client.run(os.getpid).values()), "workers died of it"
    assert_same(there, sweep(a, b, 2))


def test_a_pair_that_kills_its_workers_is_done_here(client, toy_pair):
    a, b = toy_pair
    c = b.renamed("c")  # the same weights under another name
    with changed(runner=dask_runner(client)):
        done = dict(spread(on_workers.dies_of_the_first, [a, b, c], [(0, 1), (1, 2), (2, 1)], os.getpid()))
    assert {pair: name for pair, (name, _) in done.items()} == {(0, 1): "ab", (1, 2): "bc", (2, 1): "cb"}
    assert done[0, 1][1], "it was done in this process"
