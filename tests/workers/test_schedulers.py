"""Tests of what may answer at a scheduler's address: anything, or nothing, ends in one sentence in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

import sae_geometry as sg
from sae_geometry.distributed import client as opening
from sae_geometry.distributed.errors import ClusterError

distributed = pytest.importorskip("distributed")


@contextlib.contextmanager
def server(says: bytes) -> Iterator[str]:
    """Start a server that accepts every connection, sends these bytes, and then nothing more."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    taken.append(listening.accept()[0])
                    taken[-1].sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        thread.join()
    for connection in taken:
        connection.close()


@contextlib.contextmanager
def other_dask_server() -> Iterator[str]:
    """Start a Dask server that is not a scheduler, such as a worker or a nanny."""
    ready, over, address = threading.Event(), threading.Event(), []

    async def serve() -> None:
        async with distributed.core.Server({}) as found:
            await found.listen("tcp://127.0.0.1:0")
            address.append(found.address)
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    yield address[0]
    over.set()
    thread.join()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda: server(b""), "no Dask scheduler responds at {}"),
        (lambda: server(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "{} belongs to a server of another kind, not a Dask"),
        (lambda: server(b"\2" + b"\0" * 23), "{} belongs to a server of another kind, not a Dask"),
        (other_dask_server, "{} belongs to a Server, not a Dask scheduler"),
    ],
    ids=["silent", "web", "nonsense", "dask"],
)
def test_a_server_that_is_not_a_scheduler_is_refused(what, said, monkeypatch):
    monkeypatch.setattr(opening, "_WAIT", 1)
    with what() as address, pytest.raises(ClusterError) as failed, sg.settings(executor=address):
        pass
    assert str(failed.value).startswith(said.format(address))


def test_an_invalid_address_is_refused():
    with pytest.raises(ValueError, match=r"cannot connect to tcp://127\.0\.0\.1:port .*such as tcp://host:port"):
        sg.settings(executor="tcp://127.0.0.1:port").__enter__()
