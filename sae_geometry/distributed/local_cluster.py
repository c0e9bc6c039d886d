"""A scheduler and workers on this machine, in processes of their own that end with this one.

The scheduler is no thread of ours: what it prints as it is ended is not the command's, and Ctrl-C, which a terminal
sends to all processes of a command, is ours alone to hear. Everything listens on 127.0.0.1 for TLS with a certificate
made for this cluster, which only its processes have: other accounts can reach the ports, and are refused.

The file is also the script that the scheduler's process runs, so nothing of ours is imported at its top.
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
_ENDING = 20  # seconds for scheduler and workers to end


@contextmanager
def local_cluster(workers: int, threads: int) -> Iterator[tuple[str, Any]]:
    """Start a scheduler and workers, and end them when the block or this process does, however it does.

    Args:
        workers: processes, each of which takes one piece of work at a time.
        threads: of each worker's arithmetic.

    Yields:
        The scheduler's address, and the `distributed.Security` that a client needs for it.

    Raises:
        ImportError: what makes the certificate is not installed.
        RuntimeError: they did not start.
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
            raise RuntimeError("the local workers did not start; SAE_GEOMETRY_DEBUG=1 shows why")
        yield address, security
    finally:
        process.stdout.close()
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Let the scheduler end itself and its workers, which it does when its input ends."""
    try:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(_ENDING)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()


def _serve() -> None:
    """Run scheduler and workers until the input ends, which it does when the process that asked for them has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = json.loads(sys.stdin.readline())
    sys.path[:] = asked["path"]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what workers print is no answer
    import logging

    import dask
    import distributed

    certificate, key = asked["certificate"], asked["key"]
    roles = {f"tls_{role}_{what}": value for role in ("client", "scheduler", "worker")
             for what, value in (("cert", certificate), ("key", key))}  # fmt: skip
    settings = {
        "distributed.scheduler.allowed-failures": 1,  # a piece that killed two workers is cut; by default four try
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_THREADS, str(asked["threads"])),
        "distributed.scheduler.http.routes": [],  # these would answer everyone
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
