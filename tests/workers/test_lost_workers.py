"""Tests of lost schedulers and workers, of signals, and of the processes that they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import on_workers
import pytest
from cluster_cases import assert_same, dask_runner, points, workers
from typer.testing import CliRunner

from sae_geometry.cli import app
from sae_geometry.distributed import spread
from sae_geometry.distributed.errors import ClusterError
from sae_geometry.kernels.settings import changed
from sae_geometry.kernels.sweep import sweep

psutil = pytest.importorskip("psutil")

COMPLETE = "; no results folder was left half-written"


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
    assert errors == [f"error: the Dask scheduler at {address} was lost; restart it and rerun the command"]
    assert "saved in" in result.stderr
    assert "finished pair" in result.stderr
    assert list(kept.glob("[!.]*.npz"))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("kill", "sent", "code", "said"),
    [
        pytest.param(os.killpg, signal.SIGINT, 130, f"error: stopped{COMPLETE}", id="ctrl-c"),
        pytest.param(os.kill, signal.SIGTERM, 143, f"error: stopped by SIGTERM{COMPLETE}", id="sigterm"),
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
        assert len(_left_of(program.pid)) >= 3, "there should be this process, the scheduler's and the worker"
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


def test_a_cluster_left_without_workers_is_one_sentence(monkeypatch):
    from sae_geometry.distributed import scheduler as cluster

    monkeypatch.setattr(cluster, "_LOOK", 0.01)
    monkeypatch.setattr(cluster, "_NO_WORKERS", 0.05)
    there = SimpleNamespace(address="tcp://there:1", identity=None)
    deserted = cluster.Cluster(SimpleNamespace(scheduler=there, nthreads=lambda **_: {}))
    with pytest.raises(ClusterError, match="no workers are left at tcp://there:1; start some and rerun the command"):
        deserted._next(SimpleQueue())

    def silent(*_, callback_timeout):
        raise TimeoutError(f"no answer in {callback_timeout} s")

    stopped = cluster.Cluster(SimpleNamespace(scheduler=there, nthreads=silent, sync=silent, status="running"))
    with pytest.raises(ClusterError, match="the Dask scheduler at tcp://there:1 was lost"):
        stopped._next(SimpleQueue())


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
    assert killed, "no worker was killed while it had tiles"
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
    assert before - set(client.run(os.getpid).values()), "the tile should have killed workers"
    assert_same(there, sweep(a, b, 2))


def test_a_pair_that_kills_its_workers_is_done_here(client, toy_pair):
    a, b = toy_pair
    c = b.renamed("c")  # the same weights under another name
    with changed(runner=dask_runner(client)):
        done = dict(spread(on_workers.dies_of_the_first, [a, b, c], [(0, 1), (1, 2), (2, 1)], os.getpid()))
    assert {pair: name for pair, (name, _) in done.items()} == {(0, 1): "ab", (1, 2): "bc", (2, 1): "cb"}
    assert done[0, 1][1], "the pair should have been compared in this process"
