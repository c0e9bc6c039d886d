"""From what a user calls an executor to whoever takes the sweeps: a Dask client, or the address of one to be made."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed.sweep_checkpoint import KeepingRunner
from sae_geometry.kernels.runner import current_runner, sweeps_run_by

if TYPE_CHECKING:
    from distributed import Client

    from sae_geometry.distributed.worker import Device

Executor = Any
"""A `distributed.Client`, "local:N" (N worker processes on this machine), or a scheduler's address, "tcp://host:port"."""

_WAIT = 30  # seconds for a first worker


@contextmanager
def running_on(
    executor: Executor | None,
    *,
    device: Device = "auto",
    load: Sequence[Dictionary] = (),
    offline: bool = False,
) -> Iterator[None]:
    """While this lasts, sweeps and pairs are cut up and sent to the executor; None changes nothing.

    A client that is given stays open; one that is made from an address is closed at the end, and with "local:N" its
    workers too.

    Args:
        executor: see `Executor`.
        device: "cpu" keeps workers from their GPUs; otherwise those that have one use it, and those that have none do
            on their CPU what is on a GPU here.
        load: dictionaries that a worker may load from their addresses, with credentials of its own, rather than be
            sent; it must find the same fingerprint there, or they are sent after all.
        offline: whether workers load without touching the network.

    Raises:
        ValueError: not an executor.
        ImportError: Dask is not installed.
        ClusterError: no scheduler or no worker there.

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
        keeping = current_runner()
        stack.enter_context(sweeps_run_by(keeping.over(runner) if isinstance(keeping, KeepingRunner) else runner))
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
    try:
        import dask
        import distributed
    except ImportError:
        raise ImportError("Dask is not installed; pip install 'sae-geometry[dask]' brings it") from None
    from sae_geometry.distributed.errors import ClusterError, lost

    with ExitStack() as stack:
        if local:
            from sae_geometry.kernels.sweep import cpu_threads

            workers = int(local[1])
            threads = stack.enter_context(_threads_of_workers(max(1, cpu_threads() // workers)))
            # A piece that killed two workers is cut in halves; by default it would be tried on four.
            settings: dict[str, Any] = {
                "distributed.scheduler.allowed-failures": 1,
                "distributed.nanny.pre-spawn-environ": threads,
            }
            stack.enter_context(dask.config.set(settings))
            with _deaf_to_ctrl_c():
                cluster = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            stack.callback(cluster.close, timeout=10)
            address = cluster.scheduler_address
        try:
            client = distributed.Client(address, timeout=_WAIT, set_as_default=False)
        except (OSError, TimeoutError):
            raise ClusterError(f"no Dask scheduler answers at {address}; start one, or check the address") from None
        stack.callback(client.close, timeout=5)
        try:
            client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError:
            raise ClusterError(
                f"the Dask scheduler at {address} has no workers; start some with dask worker {address}"
            ) from None
        except OSError:
            raise lost(address) from None
        if local:
            stack.callback(_ends_quietly, cluster.loop.asyncio_loop)
        yield client


def _ends_quietly(loop: asyncio.AbstractEventLoop) -> None:
    """What our own scheduler could not finish, since it was ended, is no news: asyncio would print a traceback."""
    loop.set_exception_handler(lambda _loop, _context: None)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Threads and processes started inside never hear Ctrl-C, which a terminal sends to all of them: we end them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # as it is started, it lets whoever starts it hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def _threads_of_workers(n: int) -> Iterator[dict[str, str]]:
    """The variables that give workers so many threads, set in this process too, and as before after.

    Dask alone would let those that are set here go before, and would leave its own behind.
    """
    before = {name: os.environ.get(name) for name in (*_THREADS, "PYTHONHASHSEED")}
    values = dict.fromkeys(_THREADS, str(n))
    os.environ.update(values)
    try:
        yield values
    finally:
        for name, old in before.items():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old
