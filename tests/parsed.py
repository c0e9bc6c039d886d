"""The package's sources as syntax trees, for the tests that read all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sae_geometry as sg

PACKAGE = Path(sg.__file__).parent


@cache
def nodes_of(source: str) -> list[ast.AST]:
    """Return every node of a source, cached because several tests read the whole package."""
    return list(ast.walk(ast.parse(source)))


def module_name(path: Path, package: Path) -> str:
    """Return the name of a module within its package, with dots: `kernels.sweep`."""
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Free the cached trees after a module's tests; import it there for that."""
    yield
    nodes_of.cache_clear()
