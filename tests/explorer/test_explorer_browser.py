"""Tests of the explorer in a real Chromium, with the browser offline and every request recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_cases import HOSTILE, best, chance, partner
from explorer_reader import FRAME, NAMES, SIZE, Reader, address, color_at, near

# ---- it opens, and it draws ----------------------------------------------------------------------------------------


def test_it_opens_without_messages_and_draws_each_run_in_its_color(reader):
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


def test_the_footer_shows_the_evidence_and_the_provenance(reader):
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
def test_hover_shows_the_latent_and_its_partners(reader, row):
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


def test_without_a_selection_the_panel_suggests_a_start(reader):
    reader.page.click("text=the best match")
    top = int(np.nanargmax(best(FRAME)))
    assert str(FRAME.latent_id[top]) in reader.text("#chosen h2")
    reader.page.click("[aria-label='Clear the selection']")
    assert "Nothing selected" in reader.text("#chosen")
    assert reader.lines(1) == []
    reader.page.click("text=the least similar latent")
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
        ("#latent=3", "does not name a run"),
    ):
        reader.page.evaluate("(hash) => { location.hash = hash }", hash_)
        reader.page.wait_for_function(
            "(said) => document.getElementById('answer').textContent.includes(said)", arg=said
        )
        assert "Nothing selected" in reader.text("#chosen")
