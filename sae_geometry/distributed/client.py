"""The `settings` context manager, and Dask clients made from addresses."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.errors import ClusterError, lost
from sae_geometry.distributed.local_cluster import local_cluster
from sae_geometry.io.escaping import shown
from sae_geometry.io.extras import require
from sae_geometry.kernels.settings import Device, Limits, Settings, changed

if TYPE_CHECKING:
    from distributed import Client

Executor = Any
"""A `distributed.Client`, "local:N" (N worker processes on this machine), or a scheduler's address, "tcp://host:port"."""

_WAIT = 30  # seconds to wait for the scheduler and for a first worker


@contextmanager
def settings(
    *,
    memory: int | str | None = None,
    device: Device | None = None,
    executor: Executor | None = None,
    load: Sequence[Dictionary] = (),
    offline: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    limits: Limits | None = None,
) -> Iterator[Settings]:
    """Change settings within the context; None leaves a setting unchanged.

    A client given as the executor stays open. A client created from an address is closed on exit, together with the
    workers of "local:N".

    Args:
        memory: limit per sweep, including its results but not its inputs, in bytes or as a string such as "500MB" or
            "2 GiB" (K, M, G and T are powers of 1,024 in both spellings). Blocks shrink to fit, which costs time; a
            sweep that cannot fit is refused. Tables, null expectations, layouts and figures are not included.
        device: device for loaded dictionaries: "auto" (a GPU if there is one), "cpu", "cuda" or "mps". "cpu" also
            restricts workers to their CPUs; otherwise workers with a GPU use it.
        executor: `Executor` that runs sweeps and pairs.
        load: dictionaries that workers may load from their addresses, with the workers' own credentials, instead of
            receiving them. A dictionary whose fingerprint differs there is sent.
        offline: if True, neither this process nor the workers use the network.
        cache: folder for downloads, instead of $SAE_GEOMETRY_CACHE.
        limits: timeouts, attempts and rates of requests (`sae_geometry.sources.Limits`), for slow connections.

    Raises:
        ValueError: the memory is not a size, the device is unknown, or the executor is not an `Executor`.
        ImportError: Dask is not installed.
        ClusterError: no scheduler responds at the address, or the scheduler has no workers.

    Example:
        >>> import sae_geometry as sg
        >>> with sg.settings(memory="64MB", offline=True):
        ...     report = sg.within("demo:local-seed0").swept.report
        >>> report.memory
        67108864
    """
    folder = None if cache is None else Path(os.path.expanduser(cache)).absolute()
    given = {"memory": memory, "device": device, "offline": offline, "cache": folder, "limits": limits}
    with ExitStack() as stack:
        now = stack.enter_context(changed(**{key: value for key, value in given.items() if value is not None}))
        if executor is not None:
            client = stack.enter_context(_opened(executor)) if isinstance(executor, str) else _checked(executor)
            from sae_geometry.distributed.dask_runner import DaskRunner

            runner = DaskRunner(client, device=now.device or "auto", load=load)
            stack.callback(runner.close)
            now = stack.enter_context(changed(runner=runner))
        yield now


def _checked(executor: Any) -> Client:
    if not all(hasattr(executor, name) for name in ("scatter", "submit", "scheduler_info")):
        raise ValueError(
            'executor must be a distributed.Client, "local:N" or a scheduler\'s address, "tcp://host:port"; got '
            f"{type(executor).__name__}"
        )
    client: Client = executor
    return client


@contextmanager
def _opened(address: str) -> Iterator[Client]:
    local = re.fullmatch(r"local:([1-9]\d{0,3})", address)
    if not local and not re.fullmatch(r"(tcp|tls|ucx|ucxx|ws|wss|inproc)://.+", address):
        raise ValueError(f'an executor must be "local:N" or a scheduler\'s address, "tcp://host:port"; got {address!r}')
    if "@" in address:
        raise ValueError(
            "a Dask scheduler's address cannot have a user name or password: give tcp://host:port or tls://host:port"
        )
    distributed = require("distributed", "dask", "an executor")
    from distributed.utils import silence_logging_cmgr

    with ExitStack() as stack:
        security = None  # With None, Dask's configuration applies.
        if local:
            from sae_geometry.kernels.sweep import cpu_threads

            workers = int(local[1])
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
            address, security = stack.enter_context(local_cluster(workers, max(1, cpu_threads() // workers)))
        try:
            if not local:
                _meet(address)
            client = distributed.Client(address, timeout=_WAIT, set_as_default=False, security=security)
        except ClusterError:
            raise
        except (OSError, TimeoutError):
            raise ClusterError(f"no Dask scheduler responds at {address}; start one, or check the address") from None
        except (TypeError, ValueError, RuntimeError) as error:  # The address or the TLS settings are wrong.
            raise ValueError(
                f"Dask cannot connect to {address} ({error}): give an address such as tcp://host:port; in Dask's "
                "configuration, a tls:// scheduler needs distributed.comm.tls.ca-file, .client.cert and .client.key, "
                "and any other scheduler needs distributed.comm.require-encryption to be off"
            ) from None
        stack.callback(client.close, timeout=5)
        try:
            client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError:
            raise ClusterError(
                f"the Dask scheduler at {address} has no workers; start some with dask worker {address}"
            ) from None
        except OSError:
            raise lost(address) from None
        yield client


def _meet(address: str) -> None:
    """Check that a Dask scheduler responds at an address, since distributed's own handshake has no timeout.

    Raises:
        OSError, TimeoutError: no response within `_WAIT` seconds.
        ClusterError: the server at the address is not a scheduler.
        TypeError, ValueError, RuntimeError: Dask's configuration does not fit the address.
    """
    from distributed import Security
    from distributed.comm import connect

    try:
        arguments = Security().get_connection_args("client")
    except OSError as error:
        raise ValueError(f"the certificates cannot be read: {error.strerror or error}") from error

    async def kind() -> object:
        comm = await connect(address, timeout=_WAIT, **arguments)
        try:
            await comm.write({"op": "identity", "reply": True})
            return (await comm.read())["type"]
        finally:
            comm.abort()

    with ThreadPoolExecutor(1) as thread:  # In a notebook, the calling thread already runs a loop.
        try:
            found = thread.submit(asyncio.run, asyncio.wait_for(kind(), _WAIT)).result()
        except (OSError, TimeoutError, TypeError, ValueError, RuntimeError):
            raise
        except Exception:  # Dask's parsers may raise any exception for another protocol.
            found = "server of another kind"
    if found != "Scheduler":
        raise ClusterError(
            f"{address} belongs to a {shown(found, 40)}, not a Dask scheduler: give the address that dask scheduler "
            "prints, tcp://host:8786 by default"
        )
