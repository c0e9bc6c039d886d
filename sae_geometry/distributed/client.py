"""Executors: a Dask client, or the address from which to create one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from sae_geometry.dictionary import Dictionary
from sae_geometry.io.extras import require
from sae_geometry.kernels.runner import sweeps_run_by

if TYPE_CHECKING:
    from distributed import Client

    from sae_geometry.distributed.worker import Device

Executor = Any
"""A `distributed.Client`, "local:N" (N worker processes on this machine), or a scheduler's address, "tcp://host:port"."""

_WAIT = 30  # seconds to wait for a first worker


@contextmanager
def running_on(
    executor: Executor | None,
    *,
    device: Device = "auto",
    load: Sequence[Dictionary] = (),
    offline: bool = False,
) -> Iterator[None]:
    """Run sweeps and pairs on the executor within the context; None changes nothing.

    A given client stays open; one created from an address is closed on exit, together with the workers of "local:N".

    Args:
        executor: see `Executor`.
        device: "cpu" restricts workers to their CPUs; otherwise workers use a GPU where they have one, and their CPU
            elsewhere.
        load: dictionaries that workers may load from their addresses, with their own credentials, instead of receiving
            them; if the fingerprint differs, they are sent.
        offline: whether workers load without network access.

    Raises:
        ValueError: not an executor.
        ImportError: Dask is not installed.
        ClusterError: no scheduler or no worker at the address.

    Example:
        >>> from sae_geometry.distributed import running_on
        >>> with running_on(None):
        ...     pass
    """
    if executor is None:
        yield
        return
    with ExitStack() as stack:
        client = stack.enter_context(_opened(executor)) if isinstance(executor, str) else _checked(executor)
        from sae_geometry.distributed.dask_runner import DaskRunner

        runner = DaskRunner(client, device=device, load=load, offline=offline)
        stack.callback(runner.close)
        stack.enter_context(sweeps_run_by(runner))
        yield


def _checked(executor: Any) -> Client:
    if not all(hasattr(executor, name) for name in ("scatter", "submit", "scheduler_info")):
        raise ValueError(
            'executor is a distributed.Client, "local:N" or the address of a scheduler, "tcp://host:port"; got '
            f"{type(executor).__name__}"
        )
    client: Client = executor
    return client


@contextmanager
def _opened(address: str) -> Iterator[Client]:
    local = re.fullmatch(r"local:([1-9]\d{0,3})", address)
    if not local and not re.fullmatch(r"(tcp|tls|ucx|ucxx|ws|wss|inproc)://.+", address):
        raise ValueError(f'a Dask executor is "local:N" or a scheduler\'s address, "tcp://host:port"; got {address!r}')
    if "@" in address:
        raise ValueError(
            "a Dask scheduler's address has no user name or password: give tcp://host:port or tls://host:port"
        )
    distributed = require("distributed", "dask", "an executor")
    from distributed.utils import silence_logging_cmgr

    from sae_geometry.distributed.errors import ClusterError, lost

    with ExitStack() as stack:
        security = None  # Dask's configuration decides
        if local:
            from sae_geometry.distributed.local_cluster import local_cluster
            from sae_geometry.kernels.sweep import cpu_threads

            workers = int(local[1])
            stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
            address, security = stack.enter_context(local_cluster(workers, max(1, cpu_threads() // workers)))
        try:
            client = distributed.Client(address, timeout=_WAIT, set_as_default=False, security=security)
        except (OSError, TimeoutError):
            raise ClusterError(f"no Dask scheduler answers at {address}; start one, or check the address") from None
        except (TypeError, ValueError, RuntimeError) as error:  # no certificates, or encryption not offered
            raise ValueError(
                f"Dask's configuration does not fit {address} ({error}); a tls:// scheduler needs "
                "distributed.comm.tls.ca-file and .client.cert and .key there, one that is not tls:// no encryption"
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
