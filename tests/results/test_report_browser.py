"""Tests of the report in a real Chromium, with every request recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from every_result import dictionaries
from explorer_reader import FLAGS, Reader

import sae_geometry as sg
from sae_geometry import plots
from sae_geometry.results.report import report_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

N = 46_080
HOSTILE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Return the page of a comparison whose lists are as long as those of 46,080 latents, with labels and gaps."""
    a, b, _ = dictionaries()
    found = sg.compare(a, b, turns=1)
    rng = np.random.default_rng(0)
    long = pd.DataFrame(
        {
            "a_id": np.arange(N),
            "b_id": rng.permutation(N),
            "cosine": np.sort(rng.uniform(0.7, 1, N))[::-1],
            "q_value": np.where(rng.random(N) < 0.3, np.nan, rng.uniform(0, 1, N)),
            "label": [f"{i % 7} words of {HOSTILE}" if i % 5 else "apples" for i in range(N)],
        }
    )
    result = replace(found)
    result.__dict__["_lists"] = {"shared": long, "only-a": long, "only-b": long.head(3)}
    path = tmp_path_factory.mktemp("report") / "report.html"
    figure = {"partners": plots.figure_of(lambda ax: plots.partners_histogram(found.nearest_a_to_b, ax), 3.6, 2.9)}
    path.write_text(report_page(result, figure, command=f"compare {'x' * 300}", explorer="explorer.html"), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def reader(browser, path) -> Iterator[Reader]:
    reader = Reader(browser, viewport={"width": 375, "height": 760}, color_scheme="dark")
    reader.page.goto(path.as_uri())
    yield reader
    assert reader.said == []
    assert reader.requests == [path.as_uri()]
    assert reader.page.evaluate("() => window.hacked") is None
    reader.context.close()


def column(reader: Reader, at: int) -> list[str]:
    return reader.page.locator(f"table:has(button) >> nth=0 >> tbody td:nth-child({at})").all_text_contents()


def test_of_46080_latents_it_is_small_and_fits_a_phone(reader, path):
    assert path.stat().st_size < 1e6  # Most of it is a figure; a comparison has five more.
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert reader.page.locator("h2", has_text="first 200 of 46,080; shared.csv has all").count() == 1
    assert reader.page.locator("table:has(button)").count() == 3
    assert reader.page.locator("table:not(:has(button))").count() > 0  # of labels
    assert reader.page.locator("a").get_attribute("href") == "explorer.html"
    heads = "[...document.querySelectorAll('th')].map((head) => head.clientHeight)"
    assert max(reader.page.evaluate(heads)) < 40  # A heading takes one line, and the table scrolls.
    ground = "getComputedStyle(document.body).backgroundColor"
    assert reader.page.evaluate(ground) == "rgb(23, 24, 27)"
    reader.page.emulate_media(media="print", color_scheme="light")
    assert reader.page.evaluate(ground) == "rgb(255, 255, 255)"


def test_tables_are_sorted_and_details_opened_by_keys(reader):
    reader.page.evaluate("document.querySelectorAll('th button')[3].focus()")
    reader.page.keyboard.press("Shift")  # Pressing a key makes the browser show focus as it does for keyboard users.
    reader.page.keyboard.press("Enter")
    values = [float(t) for t in column(reader, 4) if t]
    assert 100 < len(values) < 200
    assert column(reader, 4)[len(values) :] == [""] * (200 - len(values))
    assert values == sorted(values, reverse=True)
    reader.page.keyboard.press("Enter")
    assert [float(t) for t in column(reader, 4) if t] == sorted(values)
    assert reader.page.locator("th:has(button) >> nth=3").get_attribute("aria-sort") == "ascending"
    reader.page.keyboard.press("Tab")
    assert reader.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    reader.page.keyboard.press("Space")
    texts = column(reader, 5)
    assert texts == sorted(texts, reverse=True)  # Text that begins with a number is sorted as text.
    summary = reader.page.locator("details summary")
    summary.focus()
    reader.page.keyboard.press("Enter")
    assert reader.page.evaluate("document.querySelector('details').open")
    button = reader.page.locator("th button >> nth=2")
    assert "cosine of the pair" in button.get_attribute("title")


def test_the_browser_itself_forbids_the_network(reader):
    assert reader.blocked_directive() == "connect-src"
    reader.said.clear()
