"""Tests of the explorer's filters, colors and lasso in a real Chromium."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explorer_cases import best, chance, labeled, partner, regions, summary
from explorer_reader import FRAME, NAMES, SIZE, Reader, color_at, near
from PIL import Image

from sae_geometry import explorer
from sae_geometry.explorer.contents import Contents
from sae_geometry.results.columns import TABLES

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


def test_a_link_with_invalid_filters_filters_nothing(reader):
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
