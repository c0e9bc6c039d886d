"""A Dask scheduler and workers on this machine, in separate processes that end when this process ends.

The scheduler is a process rather than a thread, so that its output on exit does not mix with the command's, and so that
only this process handles Ctrl-C, which a terminal sends to all processes of a command. All ports are on 127.0.0.1 and
require TLS with a certificate that only the processes of this cluster have, so other accounts cannot connect.

The scheduler's process runs this file as a script, so the module's top level imports nothing from the package.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ENDING = 20  # seconds to wait for the scheduler and its workers to end


@contextmanager
def local_cluster(workers: int, threads: int) -> Iterator[tuple[str, Any]]:
    """Start a scheduler and workers that end with the context or with this process, even if it is killed.

    Yield the scheduler's address and the `distributed.Security` that a client needs. Each worker is a process that runs
    one task at a time on `threads` threads.
    """
    from distributed import Security

    security = Security.temporary()
    asked = {
        "workers": workers, "threads": threads, "path": sys.path,
        "certificate": security.tls_client_cert, "key": security.tls_client_key,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("SAE_GEOMETRY_DEBUG") == "1" else subprocess.DEVNULL,
        env=os.environ | dict.fromkeys(_THREADS, str(threads)),
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("the local Dask workers did not start; set SAE_GEOMETRY_DEBUG=1 to see why")
        yield address, security
    finally:
        process.stdout.close()
        try:
            process.stdin.close()  # The scheduler then ends its workers and itself.
            process.wait(_ENDING)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()


def _serve() -> None:
    """Run a scheduler and workers until the parent process closes stdin or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = json.loads(sys.stdin.readline())
    sys.path[:] = asked["path"]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Stdout carries only the address, not the workers' output.
    import logging

    import dask
    import distributed

    certificate, key = asked["certificate"], asked["key"]
    roles = {f"tls_{role}_{what}": value for role in ("client", "scheduler", "worker")
             for what, value in (("cert", certificate), ("key", key))}  # fmt: skip
    settings = {
        "distributed.scheduler.allowed-failures": 1,  # Split a task that killed two workers (default: 3).
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_THREADS, str(asked["threads"])),
        "distributed.scheduler.http.routes": [],  # Dask's HTTP pages have no access control.
        "distributed.worker.http.routes": [],
    }
    with dask.config.set(settings):
        cluster = distributed.LocalCluster(
            n_workers=asked["workers"],
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            security=distributed.Security(require_encryption=True, tls_ca_file=certificate, **roles),
            silence_logs=logging.CRITICAL,
        )
        answer.write(cluster.scheduler_address + "\n")
        answer.close()
        sys.stdin.read()
        cluster.close(timeout=_ENDING // 2)


if __name__ == "__main__":
    _serve()
