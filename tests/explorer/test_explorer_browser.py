"""Tests of the explorer in a real Chromium, with the browser offline and every request recorded."""

from __future__ import annotations

import csv
import io
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_cases import HOSTILE, best, chance, labeled, partner, regions, results, summary, table
from explorer_reader import FLAGS, FRAME, NAMES, SIZE, Reader, address, color_at, near
from PIL import Image

import sae_geometry as sg
from sae_geometry import explorer
from sae_geometry.explorer.contents import Contents
from sae_geometry.results.columns import TABLES

pytest.importorskip("plotly", reason="the explorer needs plotly")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
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


# ---- it opens, and it draws ----------------------------------------------------------------------------------------


def test_it_opens_quietly_and_draws_each_run_in_its_color(reader):
    assert reader.page.title() == f"{' · '.join(NAMES)} · sae-geometry"
    assert reader.text("#subtitle") == "180 latents of 3 dictionaries"
    assert reader.page.locator("#dots").count() == 1
    for row, wanted in ((0, "#E69F00"), (SIZE, "#56B4E9"), (2 * SIZE, "#009E73")):
        assert near(color_at(reader, FRAME.run[row], FRAME.latent_id[row]), wanted)
    assert reader.page.locator(".annotation-text").all_text_contents() == ["A", "B"]


def test_the_browser_itself_forbids_the_network(reader):
    assert reader.blocked_directive() == "connect-src"
    assert any("Content Security Policy" in text for text in reader.said)
    reader.said.clear()


def test_the_foot_says_how_far_to_believe_it_and_how_it_was_made(reader):
    assert "trustworthiness 0.912; neighbors preserved 34%" in reader.text("#evidence")
    assert reader.text("#caveats") == f"caveat {HOSTILE}"
    reader.page.click("footer summary")
    made = reader.text("#provenance")
    for part in (
        "sae-geometry umap a b --html",
        "./alpha.pt",
        "min_dist 0.1, seed 4, umap-learn 0.5",
        "2026-01-02",
        HOSTILE,
    ):
        assert part in made
    reader.page.click("footer summary")


# ---- hover, click, partners ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [5, SIZE + 7])
def test_hover_says_who_it_is_and_whom_it_matches(reader, row):
    reader.page.mouse.move(*reader.spot(FRAME.run[row], FRAME.latent_id[row]))
    reader.page.wait_for_selector("#tip", state="visible")
    tip, p = reader.text("#tip"), partner(FRAME, row)
    assert tip.splitlines()[0] == f"{FRAME.run[row]} · {FRAME.latent_id[row]}"
    assert f"best match {p['run']} · {p['id']}, cosine {p['cosine']:.3f}" in tip
    by_chance = chance(NAMES, FRAME.run[row], p["run"])
    significant = "significant" if FRAME.loc[row, f"q_value:{p['run']}"] <= 0.05 else "not significant"
    mutual = "mutual" if p["mutual"] else "not mutual"
    assert f"\nby chance {by_chance:.3f}, {mutual}, {significant}\n" in tip
    if pd.isna(p["single"]):
        assert "no one-to-one partner" in tip
    else:
        assert f"one-to-one {p['run']} · {p['single']}, cosine {p['single_cosine']:.3f}" in tip
    reader.page.mouse.move(5, 5)
    reader.page.wait_for_selector("#tip", state="hidden")


def test_a_click_draws_lines_to_the_partners_in_every_other_run(reader):
    singles = [f"one_to_one_partner_id:{name}" for name in NAMES[1:]]
    row = next(i for i in range(SIZE) if FRAME.loc[i, singles].notna().all())
    reader.page.mouse.click(*reader.spot(FRAME.run[row], FRAME.latent_id[row]))
    reader.page.wait_for_selector("#chosen .partner")
    point = {(r, i): [x, y] for r, i, x, y in zip(FRAME.run, FRAME.latent_id, FRAME.x, FRAME.y, strict=True)}
    start = point[FRAME.run[row], FRAME.latent_id[row]]
    wanted: dict[str, list[Any]] = {"nearest": [], "single": []}
    for other in NAMES[1:]:
        nearest, single = FRAME.loc[row, f"partner_id:{other}"], FRAME.loc[row, f"one_to_one_partner_id:{other}"]
        wanted["nearest"] += [start, point[other, nearest], [None, None]]
        if single != nearest:
            wanted["single"] += [start, point[other, single], [None, None]]
    assert reader.lines(1) == [[pytest.approx(v) if v is not None else None for v in p] for p in wanted["nearest"]]
    assert reader.lines(2) == [[pytest.approx(v) if v is not None else None for v in p] for p in wanted["single"]]
    drawn = reader.page.locator(".scatterlayer .js-line").evaluate_all(
        "(lines) => lines.map((l) => [l.getAttribute('d').length > 1, l.style.strokeDasharray])"
    )
    assert sorted({dash for there, dash in drawn if there}) == ["", "5px, 4px"]


def test_the_panel_names_the_partners_and_goes_there(reader):
    row = 11
    reader.choose(row)
    blocks = reader.page.locator("#chosen .partner")
    assert blocks.count() == 2
    for block, other in zip(blocks.all(), NAMES[1:], strict=True):
        text = block.inner_text()
        assert other in text
        assert f"{FRAME.loc[row, f'partner_id:{other}']}" in text
        assert f"{FRAME.loc[row, f'max_cosine:{other}']:.3f}" in text
        assert ("not mutual" in text) != FRAME.loc[row, f"mutual:{other}"]
        assert ("not significant" in text) == (FRAME.loc[row, f"q_value:{other}"] > 0.05)
        assert f"by chance {chance(NAMES, 'alpha', other):.3f}" in text
    claims = sum(
        int(((FRAME.run == name) & (FRAME["partner_id:alpha"] == FRAME.latent_id[row])).sum()) for name in NAMES[1:]
    )
    assert f"{claims or 'no'} latent" in reader.text("#chosen .facts")
    wanted = FRAME.loc[row, f"partner_id:{HOSTILE}"]
    blocks.first.locator("button").first.click()
    assert reader.text("#chosen h2").split() == [*HOSTILE.split(), str(wanted)]
    assert reader.page.evaluate("new URLSearchParams(location.hash.slice(1)).get('run')") == HOSTILE
    reader.page.go_back()
    reader.wait_for_latent(FRAME.latent_id[row])


def test_nobody_selected_is_a_place_to_begin(reader):
    reader.page.click("text=the surest match")
    top = int(np.nanargmax(best(FRAME)))
    assert str(FRAME.latent_id[top]) in reader.text("#chosen h2")
    reader.page.click("[aria-label='Let go of this latent']")
    assert "Nothing selected" in reader.text("#chosen")
    assert reader.lines(1) == []
    reader.page.click("text=the loneliest")
    assert str(FRAME.latent_id[int(np.nanargmin(best(FRAME)))]) in reader.text("#chosen h2")


def test_neuronpedia_is_linked_where_the_pages_are_known_and_nowhere_else(reader):
    reader.choose(4)
    link = reader.page.locator("#neuronpedia")
    assert link.get_attribute("href") == f"https://www.neuronpedia.org/gpt2-small/6-res-jb/{FRAME.latent_id[4]}"
    assert link.get_attribute("rel") == "noopener noreferrer"
    reader.choose(SIZE + 4)
    assert link.count() == 0
    assert reader.page.locator("a[href^=http]").count() == 0


# ---- search and deep links -----------------------------------------------------------------------------------------


def test_search_by_latent_and_run(reader):
    latent = str(FRAME.latent_id[9])
    reader.page.select_option("#wanted-run", label="gamma")
    reader.page.fill("#wanted", latent)
    reader.page.press("#wanted", "Enter")
    assert reader.text("#chosen h2").split() == ["gamma", latent]
    assert reader.page.evaluate("location.hash") == f"#run=gamma&latent={latent}"
    reader.page.select_option("#wanted-run", "-1")
    reader.page.click("#search button[type=submit]")
    assert reader.text("#chosen h2").split() == ["alpha", latent]
    assert "also in" in reader.text("#answer")
    reader.page.click("#answer button:has-text('gamma')")
    assert reader.text("#chosen h2").split() == ["gamma", latent]


@pytest.mark.parametrize(
    ("typed", "said"), [("4", "no latent 4 in any run"), ("x1", "is a number"), ("", "is a number")]
)
def test_a_search_that_finds_nothing_says_so(reader, typed, said):
    reader.page.fill("#wanted", typed)
    reader.page.evaluate("document.getElementById('search').dispatchEvent(new Event('submit', { cancelable: true }))")
    assert said in reader.text("#answer")
    assert "Nothing selected" in reader.text("#chosen")


def test_a_deep_link_opens_on_its_latent(browser, path):
    new = Reader(browser, viewport={"width": 1300, "height": 850}).open(path, address(SIZE + 3))
    assert new.text("#chosen h2").split() == [*HOSTILE.split(), str(FRAME.latent_id[SIZE + 3])]
    assert str(FRAME.latent_id[SIZE + 3]) in new.text("#said")
    assert (new.said, len(new.requests)) == ([], 1)
    new.context.close()


def test_the_address_is_followed_when_it_changes(reader):
    reader.choose(2 * SIZE + 5)
    assert reader.text("#chosen h2").split() == ["gamma", str(FRAME.latent_id[5])]
    for hash_, said in (
        ("#run=alpha&latent=4", "no latent 4 in alpha"),
        (
            "#run=%3Cimg%20src%3Dx%20onerror%3D%22window.hacked%3D1%22%3E&latent=3",
            'no run <img src=x onerror="window.hacked=1">',
        ),
        ("#latent=3", "does not say of which run"),
    ):
        reader.page.evaluate("(hash) => { location.hash = hash }", hash_)
        reader.page.wait_for_function(
            "(said) => document.getElementById('answer').textContent.includes(said)", arg=said
        )
        assert "Nothing selected" in reader.text("#chosen")


# ---- filters and colors -------------------------------------------------------------------------------------------


def test_filters_keep_what_they_say(reader):
    nearest, single = best(FRAME), best(FRAME, "one_to_one_cosine")
    reader.page.uncheck("#runs label:has-text('gamma') input")
    assert reader.shown() == 2 * SIZE
    reader.page.check(".segments label:has-text('unmatched') input", force=True)
    assert reader.shown() == int((nearest[: 2 * SIZE] < 0.7).sum())
    reader.page.check(".segments input[value=yes]", force=True)
    assert reader.shown() == int((nearest[: 2 * SIZE] >= 0.7).sum())
    reader.page.select_option("#counting", "single")
    assert reader.shown() == int((single[: 2 * SIZE] >= 0.7).sum())
    assert reader.text("#region option[value='1']").startswith("A · mixed · ")
    reader.page.select_option("#region", "1")
    assert reader.shown() == int(((single >= 0.7) & (FRAME.region == "A").fillna(False) & (FRAME.run != "gamma")).sum())
    assert len(reader.lines(0)) == 5  # its outline
    reader.page.click("#clear")
    assert reader.shown() == 3 * SIZE
    reader.page.select_option("#region", "0")
    assert reader.shown() == int(FRAME.region.isna().sum())


def test_the_slider_moves_the_threshold(reader):
    reader.page.check(".segments input[value=yes]", force=True)
    reader.page.focus("#threshold")
    for _ in range(5):
        reader.page.keyboard.press("ArrowRight")
    assert reader.text("#threshold-value") == "0.75"
    assert reader.shown() == int((best(FRAME) >= 0.75).sum())
    box = reader.page.locator("#threshold").bounding_box()
    reader.page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    threshold = float(reader.text("#threshold-value"))
    assert 0.2 < threshold < 0.4
    assert reader.shown() == int((best(FRAME) >= threshold).sum())


def test_what_is_filtered_out_is_faint_and_cannot_be_hovered(reader):
    row = 2 * SIZE + 20
    reader.page.uncheck("#runs label:has-text('gamma') input")
    reader.settle()
    color = color_at(reader, "gamma", FRAME.latent_id[row])
    assert color.min() > 190
    reader.page.mouse.move(*reader.spot("gamma", FRAME.latent_id[row]))
    reader.page.wait_for_timeout(150)
    assert reader.page.locator("#tip").is_hidden() or "gamma ·" not in reader.text("#tip").splitlines()[0]
    reader.choose(row)
    assert "filters hide this latent" in reader.text("#chosen")


def test_points_can_be_colored_in_other_ways(reader):
    assert reader.page.locator("#color option").evaluate_all("(os) => os.map((o) => o.value)") == [
        "run", "cosine", "matched", "region", "frequency",
    ]  # fmt: skip
    nearest = best(FRAME)
    high, low = int(np.nanargmax(nearest)), int(np.nanargmin(nearest))
    latents = {"high": (FRAME.run[high], FRAME.latent_id[high]), "low": (FRAME.run[low], FRAME.latent_id[low])}
    reader.page.select_option("#color", "matched")
    reader.settle()
    assert near(color_at(reader, *latents["high"]), "#0072B2")
    assert near(color_at(reader, *latents["low"]), "#E69F00")
    assert "unmatched" in reader.text("#legend")
    reader.page.select_option("#color", "cosine")
    reader.settle()
    assert near(color_at(reader, *latents["high"]), "#00264D")
    assert color_at(reader, *latents["low"]).min() > 110
    reader.page.select_option("#color", "frequency")
    reader.settle()
    assert "%" in reader.text("#legend")
    known = FRAME.frequency.astype(float)
    most, least = int(known.idxmax()), int(known.idxmin())
    dark, pale = (color_at(reader, FRAME.run[i], FRAME.latent_id[i]).sum() for i in (most, least))
    assert dark + 200 < pale
    reader.page.select_option("#color", "region")
    reader.settle()
    a, b = (int(np.flatnonzero((FRAME.region == letter).fillna(False))[0]) for letter in "AB")
    assert near(color_at(reader, FRAME.run[a], FRAME.latent_id[a]), "#E69F00")
    assert near(color_at(reader, FRAME.run[b], FRAME.latent_id[b]), "#56B4E9")
    assert reader.text("#legend").split() == ["A", "B", "outside"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_region_has_a_color_of_its_own(reader, scheme):
    reader.page.evaluate("(scheme) => setTheme(scheme)", scheme)
    apart = reader.page.evaluate(
        """() => {
            const places = [...regionColors(24).slice(0, 24), palette().nothing, palette().paper].map(seenAs);
            return places.flatMap((p, i) => places.slice(0, i).map((q) => apart(p, q)));
        }"""
    )
    assert len(apart) == 26 * 25 / 2
    assert min(apart) > 0.09  # The distance is in OKLab, where 0.02 is just visible.


def test_the_most_and_the_least_alike_pairs_are_listed(reader):
    reader.page.click("#pairs summary")
    reader.settle()
    tables = reader.page.locator("#pairs table")
    assert tables.locator("caption").all_inner_texts() == ["Most alike", "Least alike"]
    order = np.argsort(best(FRAME))
    for table_, rows in zip(tables.all(), (order[::-1], order), strict=True):
        cells = [row.locator("td").all_inner_texts() for row in table_.locator("tbody tr").all()]
        assert len(cells) == 10
        row, p = int(rows[0]), partner(FRAME, int(rows[0]))
        significant = "yes" if FRAME.loc[row, f"q_value:{p['run']}"] <= 0.05 else "no"
        by_chance = f"{chance(NAMES, FRAME.run[row], p['run']):.3f}"
        said = [str(FRAME.latent_id[row]), str(p["id"]), f"{p['cosine']:.3f}", by_chance, significant]
        assert [c.strip() for c in cells[0]] == said
    cosines = [float(c) for c in tables.nth(0).locator("tbody td:nth-child(3)").all_inner_texts()]
    assert cosines == sorted(cosines, reverse=True)
    reader.page.uncheck("#runs label:has-text('gamma') input")
    reader.settle()
    ours = order[(FRAME.run[order] != "gamma").to_numpy()]
    assert tables.nth(1).locator("tbody td").first.inner_text().strip() == str(FRAME.latent_id[int(ours[0])])
    tables.nth(1).locator("tbody button").first.click()
    assert str(FRAME.latent_id[int(ours[0])]) in reader.text("#chosen h2")
    reader.page.click("#pairs summary")


def test_the_link_has_the_filters_and_opens_with_them(reader, browser, path):
    reader.choose(7)
    reader.page.uncheck("#runs label:has-text('gamma') input")
    reader.page.check(".segments input[value=yes]", force=True)
    reader.page.select_option("#counting", "single")
    reader.page.select_option("#region", "1")
    reader.page.select_option("#color", "cosine")
    reader.page.focus("#threshold")
    reader.page.keyboard.press("ArrowLeft")
    shown = reader.shown()
    reader.page.wait_for_function("() => new URLSearchParams(location.hash).get('from') === '0.69'")
    link = reader.page.evaluate("location.hash")
    assert reader.page.get_attribute("#link", "href") == link
    new = Reader(browser, viewport={"width": 1300, "height": 850}).open(path, link)
    assert new.text("#chosen h2").split() == ["alpha", str(FRAME.latent_id[7])]
    assert new.shown() == shown < 2 * SIZE
    assert not new.page.locator("#runs label:has-text('gamma') input").is_checked()
    assert new.text("#threshold-value") == "0.69"
    values = [new.page.locator(f"#{name}").input_value() for name in ("counting", "region", "color")]
    assert values == ["single", "1", "cosine"]
    new.page.click("#clear")
    assert new.shown() == 3 * SIZE
    new.page.wait_for_function("() => location.hash === ''")
    assert (new.said, len(new.requests)) == ([], 1)
    new.context.close()


def test_a_link_with_filters_that_are_none_filters_nothing(reader):
    for link in ("#only=nobody", "#from=2", "#from=x&partner=perhaps", "#region=Z&color=plaid&counting=all"):
        reader.page.evaluate("(hash) => { state.threshold = 0.1; location.hash = hash }", link)
        reader.page.wait_for_function("() => state.threshold === 0.7")
        assert reader.shown() == 3 * SIZE
        assert reader.text("#threshold-value") == "0.70"


def test_everything_is_cleared(reader):
    whole = reader.page.evaluate("view()")
    assert reader.page.locator("#clear").is_hidden()
    reader.choose(4)
    assert reader.page.locator("#clear").is_visible()
    reader.page.focus("#picture")
    reader.page.keyboard.press("+")
    reader.page.keyboard.press("a")
    reader.page.fill("#wanted", "123")
    reader.page.check(".segments input[value=no]", force=True)
    reader.page.select_option("#counting", "single")
    reader.page.select_option("#color", "region")
    reader.page.focus("#threshold")
    reader.page.keyboard.press("ArrowRight")
    reader.page.click("#clear")
    assert reader.shown() == 3 * SIZE
    assert "Nothing selected" in reader.text("#chosen")
    assert reader.page.locator("#caught").is_hidden()
    assert reader.page.evaluate("state.caught.length") == 0
    assert reader.page.locator("#wanted").input_value() == ""
    assert reader.text("#threshold-value") == "0.70"
    values = [reader.page.locator(f"#{name}").input_value() for name in ("counting", "region", "color")]
    assert values == ["nearest", "all", "run"]
    assert reader.page.evaluate("view()")["x"] == pytest.approx(whole["x"])
    reader.page.wait_for_function("() => location.hash === ''")
    assert reader.page.locator("#clear").is_hidden()


def test_points_can_be_colored_by_readable(browser, tmp_path):
    frame = labeled(FRAME)
    page = tmp_path / "page.html"
    page.write_text(explorer.page(Contents(frame, summary(NAMES, SIZE), regions(frame))), encoding="utf-8")
    one = Reader(browser, viewport={"width": 1300, "height": 850}, color_scheme="light").open(page)
    one.page.select_option("#color", "readable")
    one.settle()
    for readable, color in ((True, "#0072B2"), (False, "#E69F00")):
        row = int(np.flatnonzero(frame.readable.to_numpy(dtype=bool) == readable)[0])
        assert near(color_at(one, frame.run[row], frame.latent_id[row]), color)
    one.context.close()


# ---- lasso ---------------------------------------------------------------------------------------------------------


def test_the_lasso_counts_and_saves_a_table(reader):
    spots = np.array([reader.spot(r, i) for r, i in zip(FRAME.run, FRAME.latent_id, strict=True)])
    frame = reader.page.locator("#picture").bounding_box()
    left, top = frame["x"] + 0.3 * frame["width"], frame["y"] + 0.2 * frame["height"]
    right, bottom = left + 0.25 * frame["width"], top + 0.4 * frame["height"]
    caught = FRAME[(spots[:, 0] > left) & (spots[:, 0] < right) & (spots[:, 1] > top) & (spots[:, 1] < bottom)]
    caught = caught[caught.run != "gamma"]  # filtered out
    assert 10 < len(caught) < 100
    reader.page.uncheck("#runs label:has-text('gamma') input")
    reader.settle()
    reader.page.click("#lasso")
    assert reader.page.get_attribute("#lasso", "aria-pressed") == "true"
    reader.page.mouse.move(left, top)
    reader.page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        reader.page.mouse.move(x, y, steps=3)
    reader.page.mouse.up()
    assert reader.text("#caught h2") == f"Lasso: {len(caught)} latents"
    counts = [int(t) for t in reader.page.locator("#caught li b").all_inner_texts()]
    assert counts == [int((caught.run == name).sum()) for name in NAMES]
    assert f"{int((best(FRAME)[caught.index] >= 0.7).sum())} matched" in reader.text("#caught")
    assert reader.page.get_attribute("#lasso", "aria-pressed") == "false"
    reader.settle()
    for i in (caught.index[0], FRAME[(FRAME.run != "gamma") & ~FRAME.index.isin(caught.index)].index[0]):
        x, y = reader.spot(FRAME.run[i], FRAME.latent_id[i])
        shot = reader.page.screenshot(clip={"x": x - 12, "y": y - 1, "width": 24, "height": 3})
        line = np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=int)[1]
        assert (line.min() < 120) == (i in caught.index)  # The rim has the color of text, and no dot is as dark.
    with reader.page.expect_download() as got:
        reader.page.click("#csv")
    assert got.value.suggested_filename == "latents.csv"
    labels = {"tokens", "explanation"}  # These results have no labels.
    rows = list(csv.DictReader(io.StringIO(Path(got.value.path()).read_text(encoding="utf-8"))))
    assert set(rows[0]) == set(next(t for t in TABLES if t.file == "latents.csv").columns) - labels
    assert {(r["run"], int(r["latent_id"])) for r in rows} == set(zip(caught.run, caught.latent_id, strict=True))
    by_latent = {(r["run"], int(r["latent_id"])): r for r in rows}
    for i in caught.index:
        got_row, p = by_latent[FRAME.run[i], FRAME.latent_id[i]], partner(FRAME, i)
        assert got_row["partner_run"] == p["run"]
        assert int(got_row["partner_id"]) == p["id"]
        assert float(got_row["max_cosine"]) == pytest.approx(p["cosine"], abs=1e-4)
        assert float(got_row["by_chance"]) == pytest.approx(chance(NAMES, FRAME.run[i], p["run"]))
        assert got_row["mutual"] == str(bool(p["mutual"])).lower()
        assert got_row["one_to_one_partner_id"] == ("" if pd.isna(p["single"]) else str(p["single"]))
        assert got_row["region"] == ("" if pd.isna(FRAME.region[i]) else FRAME.region[i])
        assert float(got_row["x"]) == pytest.approx(FRAME.x[i], abs=1e-4)
    reader.page.click("#caught .close")
    assert reader.page.locator("#caught").is_hidden()


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_every_control_is_reached_by_tab_and_shows_it(reader):
    reader.page.evaluate("document.querySelector('.skip').focus()")
    reader.page.keyboard.press("Shift")  # Pressing a key makes the browser show focus as it does for keyboard users.
    seen: list[dict[str, str]] = []
    for _ in range(40):
        focused = reader.page.evaluate(
            """() => {
                const e = document.activeElement, style = getComputedStyle(e);
                const shown = e.matches('.segments input') ? getComputedStyle(e.nextElementSibling) : style;
                return { who: e === document.body ? 'left' : e.id || e.name || e.textContent.trim(), outline: shown.outlineStyle, name: e.ariaLabel || e.labels?.[0]?.textContent || e.textContent.trim() };
            }"""  # noqa: E501
        )
        if focused["who"] == "left":
            break
        seen.append(focused)
        reader.page.keyboard.press("Tab")
    order = [f["who"] for f in seen]
    wanted = [
        "Skip to the picture", "theme", "color", "lasso", "closer", "farther", "whole", "picture", "wanted",
        "wanted-run", "Find",
    ]  # fmt: skip
    assert order[: len(wanted)] == wanted
    for control in ("matched", "threshold", "counting", "region"):
        assert control in order
    for focused in seen:
        if focused["who"]:
            assert focused["outline"] != "none", focused
            assert focused["name"], focused


@pytest.mark.parametrize(("key", "way"), [("ArrowRight", (1, 0)), ("ArrowUp", (0, 1)), ("ArrowLeft", (-1, 0))])
def test_an_arrow_goes_to_the_nearest_point_that_way(reader, key, way):
    place = FRAME[["x", "y"]].to_numpy(dtype=float)
    start = int(np.argmin(np.abs(place - place.mean(axis=0)).sum(axis=1)))
    off = place - place[start]
    along, across = off @ way, np.abs(off @ (-way[1], way[0]))
    far = np.where((along > 0) & (across <= along), np.hypot(*off.T), np.inf)
    there = int(np.argmin(far))
    if key == "ArrowRight":  # The corner is only tested if some nearer point lies too far to the side.
        assert there != int(np.argmin(np.where(along > 0, np.hypot(*off.T), np.inf)))
    reader.choose(start)
    reader.page.focus("#picture")
    reader.page.keyboard.press(key)
    assert reader.text("#chosen h2").split() == [*FRAME.run[there].split(), str(FRAME.latent_id[there])]


def test_arrows_enter_and_escape(reader):
    reader.page.focus("#picture")
    reader.page.keyboard.press("ArrowRight")
    first = reader.page.evaluate("state.row")
    assert first >= 0
    x = reader.page.evaluate("data.x[state.row]")
    reader.page.keyboard.press("ArrowRight")
    assert reader.page.evaluate("data.x[state.row]") > x
    reader.page.keyboard.press("ArrowLeft")
    reader.choose(13)
    reader.page.focus("#picture")
    reader.page.keyboard.press("Enter")
    p = partner(FRAME, 13)
    assert reader.text("#chosen h2").split() == [*p["run"].split(), str(p["id"])]
    assert "cosine" in reader.text("#said")
    reader.page.keyboard.press("Escape")
    assert "Nothing selected" in reader.text("#chosen")
    assert reader.page.evaluate("location.hash") == ""


def test_keys_zoom_pan_lasso_and_search(reader):
    width = "() => { const { x } = view(); return x[1] - x[0]; }"
    before = reader.page.evaluate(width)
    reader.page.focus("#picture")
    reader.page.keyboard.press("+")
    assert reader.page.evaluate(width) == pytest.approx(before / 1.5)
    left = reader.page.evaluate("view().x[0]")
    reader.page.keyboard.press("Shift+ArrowRight")
    assert reader.page.evaluate("view().x[0]") > left
    reader.page.keyboard.press("a")
    inside = reader.page.evaluate("picture.shown.filter((i) => inView(data, i)).length")
    assert 0 < inside < 3 * SIZE
    assert reader.text("#caught h2") == f"Lasso: {inside} latents"
    reader.page.keyboard.press("0")
    assert reader.page.evaluate(width) == pytest.approx(before)
    reader.page.keyboard.press("l")
    assert reader.page.locator("#rope").is_visible()
    reader.page.keyboard.press("Escape")
    assert reader.page.locator("#rope").is_hidden()
    reader.page.keyboard.press("/")
    assert reader.page.evaluate("document.activeElement.id") == "wanted"
    reader.page.click("#caught .close")


def test_the_wheel_zooms_and_the_buttons_too(reader):
    width = "() => { const { x } = view(); return x[1] - x[0]; }"
    before = reader.page.evaluate(width)
    reader.page.mouse.move(*reader.spot("alpha", FRAME.latent_id[30]))
    reader.page.mouse.wheel(0, -300)
    reader.page.wait_for_function(f"(before) => ({width})() < before", arg=before * 0.95)
    reader.page.wait_for_timeout(200)  # Plotly draws once more after the wheel has stopped.
    reader.page.click("#whole")
    assert reader.page.evaluate(width) == pytest.approx(before)
    reader.page.click("#farther")
    assert reader.page.evaluate(width) == pytest.approx(before * 1.5)


# ---- dark mode, phones, and limited browsers -----------------------------------------------------------------------


def _ground(reader: Reader) -> int:
    color = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(v) for v in re.findall(r"\d+", color)[:3])


def test_dark_at_the_press_of_a_button(reader):
    assert _ground(reader) > 3 * 230
    reader.page.click("#theme")
    assert _ground(reader) < 3 * 40
    assert reader.page.get_attribute("#theme", "aria-pressed") == "true"
    reader.settle()
    row = 2 * SIZE
    assert near(color_at(reader, FRAME.run[row], FRAME.latent_id[row]), "#1FBF92")
    reader.page.click("#theme")
    assert _ground(reader) > 3 * 230


def test_dark_where_the_reader_prefers_it_and_words_stay_legible(browser, path):
    dark = Reader(browser, viewport={"width": 1300, "height": 850}, color_scheme="dark").open(path, address(3))
    assert _ground(dark) < 3 * 40
    ratio = """() => [...document.querySelectorAll('h1, h2, h3, p, dt, dd, button, summary, legend, .kind, .cosine')].filter((e) => e.offsetParent && e.textContent.trim()).map((e) => {
        const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
        const luma = (c) => rgb(c).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        let ground = e; while (!ground.parentElement ? false : (rgb(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
        const [a, b] = [luma(getComputedStyle(e).color), luma(getComputedStyle(ground).backgroundColor)].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 30)];
    })"""  # noqa: E501
    for scheme in ("dark", "light"):
        dark.page.emulate_media(color_scheme=scheme)
        dark.settle()
        found = dark.page.evaluate(ratio)
        assert len(found) > 20
        assert min(found)[0] >= 4.5, min(found)
    dark.context.close()


def test_on_a_phone(browser, path):
    phone = Reader(browser, viewport={"width": 375, "height": 760}, has_touch=True, is_mobile=True).open(path)
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert not phone.page.evaluate("document.getElementById('filters').open")
    for selector in ("#tools button", "#search button", "#color", "#theme"):
        assert all(b.bounding_box()["height"] >= 40 for b in phone.page.locator(selector).all()), selector
    phone.page.touchscreen.tap(*phone.spot("alpha", FRAME.latent_id[8]))
    phone.page.wait_for_selector("#chosen .partner")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 375
    width = phone.page.evaluate("view().x[1] - view().x[0]")
    fingers = phone.context.new_cdp_session(phone.page)
    box = phone.page.locator("#picture").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, apart in (("touchStart", 30), ("touchMove", 45), ("touchMove", 60), ("touchEnd", 0)):
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}] if apart else []
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        phone.settle()
    assert phone.page.evaluate("view().x[1] - view().x[0]") == pytest.approx(width / 2, rel=0.05)
    assert (phone.said, len(phone.requests)) == ([], 1)
    phone.context.close()


def test_one_run_alone_has_no_partners_and_no_controls_for_them(browser, tmp_path):
    page = sg.explore(results(tmp_path / "one", ["solo"], 50))
    one = Reader(browser, viewport={"width": 1300, "height": 850}).open(page, "#run=solo&latent=3")
    assert one.text("#subtitle") == "50 latents of one dictionary"
    assert one.text("#chosen h2").split() == ["solo", "3"]
    assert one.page.locator(".partner").count() == 0
    assert one.page.locator("#matched").is_hidden()
    colors = one.page.locator("#color option").evaluate_all("(options) => options.map((o) => o.value)")
    assert colors == ["run", "region", "frequency"]
    one.page.mouse.move(*one.spot("solo", 10))
    one.page.wait_for_selector("#tip", state="visible")
    assert "best match" not in one.text("#tip")
    one.page.keyboard.press("a")
    assert (one.said, len(one.requests)) == ([], 1)
    one.context.close()


def test_without_webgl_it_is_the_same(browser, path):
    poor = Reader(browser, viewport={"width": 1300, "height": 850})
    poor.page.add_init_script(
        "const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext = "
        "function (kind, ...more) { return /webgl/.test(kind) ? null : get.call(this, kind, ...more); };"
    )
    poor.open(path)
    assert near(color_at(poor, "alpha", FRAME.latent_id[0]), "#E69F00")
    poor.page.mouse.click(*poor.spot("alpha", FRAME.latent_id[5]))
    poor.page.wait_for_selector("#chosen .partner")
    assert (poor.said, len(poor.requests)) == ([], 1)
    poor.context.close()


def test_nothing_is_compiled_as_it_goes(reader):
    """The policy must not contain unsafe-eval, and nothing on the page may need it."""
    policy = reader.page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "unsafe-eval" not in policy
    tried = "try { new Function('')(); done('compiled'); } catch { done('refused'); }"
    own = (
        # Code evaluated by the test itself is allowed more.
        f"() => new Promise((done) => setTimeout(() => {{ {tried} }}))"
    )
    assert reader.page.evaluate(own) == "refused"
    reader.said.clear()


def test_a_browser_that_is_too_old_is_told_so(browser, path):
    old = Reader(browser)
    old.page.add_init_script("delete window.DecompressionStream")
    old.page.goto(path.as_uri())
    old.page.wait_for_selector("[role=alert]")
    assert "too old" in old.text("[role=alert]")
    old.context.close()


def test_fifty_thousand_points_with_labels_open_and_answer(browser, tmp_path):
    names = ["a", "b"]
    frame = labeled(table(names, 25_000))
    page = tmp_path / "page.html"
    page.write_text(explorer.page(Contents(frame, summary(names, 25_000), regions(frame))), encoding="utf-8")
    assert page.stat().st_size < 8e6
    big = Reader(browser, viewport={"width": 1300, "height": 850})
    began = time.perf_counter()
    big.open(page)
    # pytest shows this with -s
    print(f"{page.stat().st_size / 1e6:.2f} MB opened in {time.perf_counter() - began:.1f} s")
    assert big.text("#subtitle") == "50,000 latents of 2 dictionaries"
    began = time.perf_counter()
    big.page.check(".segments input[value=yes]", force=True)
    assert big.shown() == int((best(frame) >= 0.7).sum())
    print(f"filtered in {time.perf_counter() - began:.1f} s")
    big.page.click("#clear")
    _search_by_word(big)
    _hostile_labels(big)
    assert (big.said, len(big.requests)) == ([], 1)
    assert big.page.evaluate("() => window.hacked") is None
    big.context.close()


def _search_by_word(big: Reader) -> None:
    """Check that searching a word highlights its latents in every run, by token or explanation."""
    began = time.perf_counter()
    big.page.fill("#wanted", "Because")
    big.page.press("#wanted", "Enter")
    assert big.shown() == 100
    assert big.page.evaluate("data.runs.map((_, r) => picture.shown.filter((i) => data.run[i] === r).length)") == [
        50,
        50,
    ]
    print(f"searched in {time.perf_counter() - began:.1f} s")
    assert "100 latents with Because" in big.text("#answer")
    big.page.click("#answer button:first-of-type")
    assert "because" in big.page.locator("#chosen p.meaning").first.inner_text()
    assert "readable" in big.text("#chosen .facts")
    big.page.evaluate("() => caught(picture.shown)")
    assert "because" in big.text("#caught-tokens").split("·")[0]
    big.page.click("#unlight")
    assert big.shown() == 50_000
    big.page.fill("#wanted", "2020")  # This is the id of no latent, and a token of a hundred.
    big.page.press("#wanted", "Enter")
    assert "There is no latent 2020" in big.text("#answer")
    big.page.click("#as-word")
    assert big.shown() == 100
    big.page.click("#unlight")
    big.page.fill("#wanted", "nothing at all")
    big.page.press("#wanted", "Enter")
    assert "No latent has" in big.text("#answer")
    big.page.click("#pairs summary")
    big.settle()
    first = big.page.locator("#pair-tables tr.meaning").first.inner_text().split("\n")
    assert len(first) == 2
    assert all("token" in line for line in first)  # one line for the latent and one for its partner
    big.page.click("#pairs summary")
    for way, legend in (("readable", "readable"), ("frequency", "%")):
        big.page.select_option("#color", way)
        big.settle()
        assert legend in big.text("#legend")


def _hostile_labels(big: Reader) -> None:
    """Check that markup in tokens and explanations is shown literally."""
    big.page.fill("#wanted", "references to dogs")
    big.page.press("#wanted", "Enter")
    assert big.shown() == 1
    big.page.click("#answer button:first-of-type")
    assert HOSTILE in "".join(big.page.locator("#chosen .meaning").all_text_contents())
