"""Tests of the explorer with keys, in dark mode, on phones, in limited browsers, and with 50,000 points."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from explorer_cases import HOSTILE, best, labeled, partner, regions, results, summary, table
from explorer_reader import FRAME, SIZE, Reader, address, color_at, near

import sae_geometry as sg
from sae_geometry import explorer
from sae_geometry.explorer.contents import Contents

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


def test_a_button_switches_to_dark_mode(reader):
    assert _ground(reader) > 3 * 230
    reader.page.click("#theme")
    assert _ground(reader) < 3 * 40
    assert reader.page.get_attribute("#theme", "aria-pressed") == "true"
    reader.settle()
    row = 2 * SIZE
    assert near(color_at(reader, FRAME.run[row], FRAME.latent_id[row]), "#1FBF92")
    reader.page.click("#theme")
    assert _ground(reader) > 3 * 230


def test_dark_mode_follows_the_preference_and_stays_legible(browser, path):
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


def test_the_page_never_compiles_code(reader):
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


def test_a_browser_that_is_too_old_gets_a_message(browser, path):
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
