"""A cluster of two local workers for the tests of Dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest


@pytest.fixture(scope="package")
def client() -> Iterator[Any]:
    """Start two workers. test_lost_workers.py must use them last, because Dask may give up a killed worker."""
    from cluster_cases import local_workers

    with local_workers(2) as client:
        yield client


@pytest.fixture
def workers_do(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Return a function that replaces the sweep of a tile on workers."""
    from sae_geometry.distributed import dask_runner

    return partial(monkeypatch.setattr, dask_runner, "sweep_tile")
