"""Local Dask workers, a runner that cuts small sweeps too, and the comparison of sweeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sae_geometry.distributed.client import _opened
from sae_geometry.kernels.types import Sweep

distributed = pytest.importorskip("distributed")


@contextlib.contextmanager
def local_workers(n: int) -> Iterator[distributed.Client]:
    """Start worker processes of one thread each, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patched, contextlib.ExitStack() as stack:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patched.setenv(name, "7")
        client = stack.enter_context(_opened(f"local:{n}"))
        client.wait_for_workers(n, timeout=200)
        yield client


def workers(client: distributed.Client) -> dict[str, int]:
    return client.nthreads()


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
