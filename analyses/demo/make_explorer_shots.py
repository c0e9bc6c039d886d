"""Make two screenshots of the explorer for the README: `python -m analyses.demo.make_explorer_shots`.

The page is made from the demo dictionaries and rendered by Chromium without a network.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

import sae_geometry as sg
from analyses.common.figures import ROOT, source_of, with_a_palette, write_sidecar

COMMAND = "python -m analyses.demo.make_explorer_shots"
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking")
SIZE = (1280, 800)


def main(folder: Path) -> None:
    """Write both screenshots to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = [sg.load(f"demo:{name}") for name in ("local-seed0", "local-seed1", "e2e-ds-seed0", "e2e-seed0")]
    with tempfile.TemporaryDirectory() as aside, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for name, scheme, shown in (("explorer", "light", runs[:2]), ("explorer-dark", "dark", runs)):
            e = sg.umap(shown)
            latent = to_show(e, runs[0], runs[1].name)
            path = sg.explore(e, Path(aside) / f"{name}.html")
            page = opened(browser, path, scheme)
            page.evaluate(f"location.hash = '#run=local-seed0&latent={latent}'")
            page.wait_for_selector("#chosen .partner")
            page.wait_for_timeout(500)
            page.screenshot(path=folder / f"{name}.png")
            with_a_palette(folder / f"{name}.png")
            write_sidecar(folder / name, [source_of(d) for d in shown], command=COMMAND)
            print(f"wrote {name}.png and .json")
        browser.close()


def to_show(e: sg.Embedding, run: sg.Dictionary, other: str) -> int:
    """Return a readable latent with a cosine above 0.7 and long lines to two different partners in another run."""
    assert run.labels is not None
    table = e.to_pandas().set_index("latent_id")
    mine, there = table[table["run"] == run.name], table.loc[table["run"] == other, ["x", "y"]]
    readable = run.labels.for_ids(mine.index.to_numpy())["readable"]
    mine = mine[readable.to_numpy(dtype=bool) & (mine[f"max_cosine:{other}"] > 0.7)]
    pairs = mine[[f"partner_id:{other}", f"one_to_one_partner_id:{other}"]].dropna().astype(int)
    pairs = pairs[pairs.iloc[:, 0] != pairs.iloc[:, 1]]
    here = mine[["x", "y"]].reindex(pairs.index).to_numpy()
    far = [np.hypot(*(there.reindex(pairs[column]).to_numpy() - here).T) for column in pairs]
    return int(pairs.index[np.minimum(*far).argmax()])


def opened(browser: Browser, path: Path, scheme: str) -> Page:
    """Return the page after it has been drawn."""
    width, height = SIZE
    context = browser.new_context(
        offline=True,
        viewport={"width": width, "height": height},
        device_scale_factor=1.5,
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    return page


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "figures")
