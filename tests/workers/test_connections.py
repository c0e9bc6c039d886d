"""Tests of addresses, options, certificates and the environment of Dask clusters."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from cluster_cases import workers
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.distributed.errors import ClusterError
from sae_geometry.kernels.settings import current
from sae_geometry.kernels.sweep import cpu_threads

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")


def test_local_workers_share_the_threads_that_this_process_has(client):
    assert set(client.run(torch.get_num_threads).values()) == {max(1, cpu_threads() // 2)}


def test_what_cannot_be_sent_raises_its_own_error(client):
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
    assert "add --dask, or leave out --dask-load" in result.stderr


@pytest.mark.parametrize(
    ("where", "code", "said"),
    [
        ("local", 2, 'an executor must be "local:N" or a scheduler\'s address'),
        ("local:0", 2, "got 'local:0'"),
        ("tcp://127.0.0.1:9", 1, "no Dask scheduler responds at tcp://127.0.0.1:9"),
        ("tls://127.0.0.1:9", 2, "a tls:// scheduler needs distributed.comm.tls.ca-file"),
    ],
)
def test_wrong_addresses_are_refused(where, code, said, monkeypatch, tmp_path):
    from sae_geometry.distributed import client as opening

    monkeypatch.setattr(opening, "_WAIT", 1)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["compare", "demo:local-narrow-seed0", "demo:local-seed0", "--dask", where])
    assert result.exit_code == code
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unchecked")
def test_what_is_not_an_executor_is_refused(toy_pair):
    with pytest.raises(ValueError, match=r"executor must be a distributed\.Client"):
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


def test_local_workers_admit_only_their_certificate(client):
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
