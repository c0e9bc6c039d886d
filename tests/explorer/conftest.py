"""A page of the explorer in a real, offline Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_cases import HOSTILE, results
from explorer_reader import FLAGS, NAMES, SIZE, Reader

import sae_geometry as sg


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("plotly", reason="the explorer needs plotly")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(browser, tmp_path_factory) -> Path:
    folder = results(tmp_path_factory.mktemp("explorer") / "umap", NAMES, SIZE, caveats=[f"caveat {HOSTILE}"])
    return sg.explore(folder)


@pytest.fixture(scope="module")
def opened(browser, path) -> Iterator[Reader]:
    reader = Reader(browser, viewport={"width": 1300, "height": 850}, color_scheme="light").open(path)
    yield reader
    reader.context.close()


@pytest.fixture
def reader(opened) -> Iterator[Reader]:
    """Yield the page in its initial state, and require that the test caused no request and no console message."""
    opened.page.evaluate("() => { clearEverything(); setTheme('light'); }")
    opened.page.mouse.move(5, 5)
    opened.settle()
    yield opened
    assert opened.said == []
    assert len(opened.requests) == 1
    assert opened.requests[0].startswith("file://")
    assert opened.page.evaluate("() => window.hacked") is None
