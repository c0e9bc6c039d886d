"""One small model and its activations, shared by all tests of the training."""

from __future__ import annotations

import pytest
from small_training import SmallTail, small_data

from analyses.demo.train.activations import Cache


@pytest.fixture(scope="session")
def tail() -> SmallTail:
    return SmallTail()


@pytest.fixture(scope="session")
def data(tail: SmallTail) -> Cache:
    return small_data(tail)
