"""A page in an offline Chromium, with everything that it logs or requests."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from explorer_cases import HOSTILE, table
from PIL import Image

FLAGS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
NAMES = ["alpha", HOSTILE, "gamma"]
SIZE = 60
FRAME = table(NAMES, SIZE)


class Reader:
    """Page in a browser without a network, with everything that it logs or requests."""

    def __init__(self, browser: Any, **kind: Any) -> None:
        self.context = browser.new_context(offline=True, accept_downloads=True, **kind)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))

    def open(self, path: Path, address: str = "") -> Reader:
        self.page.goto(path.as_uri() + address)
        self.page.wait_for_selector("body[data-ready]", timeout=30_000)
        return self

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def spot(self, run: str, latent: int) -> tuple[float, float]:
        """Return the screen coordinates of a latent."""
        x, y = self.page.evaluate("([run, id]) => explorer.pixelOf(run, id)", [run, int(latent)])
        box = self.page.locator("#picture").bounding_box()
        return box["x"] + x, box["y"] + y

    def blocked_directive(self) -> str:
        """Return the directive of the page's policy that blocks a request made from the page."""
        directive: str = self.page.evaluate(
            """() => new Promise((done) => {
                document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective), { once: true });
                fetch('https://example.org/').catch(() => {});
            })"""
        )
        return directive

    def settle(self) -> None:
        """Wait until pending changes have been drawn."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def choose(self, row: int) -> None:
        self.page.evaluate("(hash) => { location.hash = hash }", address(row))
        self.wait_for_latent(FRAME.latent_id[row])

    def wait_for_latent(self, latent: int) -> None:
        """Wait until the panel shows a latent."""
        self.page.wait_for_function("(id) => document.querySelector('#chosen b')?.textContent === id", arg=str(latent))

    def shown(self) -> int:
        self.settle()
        return int(re.search(r"(?:all )?([\d,]+)", self.text("#shown"))[1].replace(",", ""))

    def lines(self, trace: int) -> list[list[float]]:
        """Return the ends of the partner lines of a trace, as coordinates."""
        return self.page.evaluate(
            "(t) => { const { x, y } = picture.div.data[t]; return [...x].map((v, i) => [v, y[i]]); }", trace
        )


def address(row: int) -> str:
    return "#" + urlencode({"run": FRAME.run[row], "latent": int(FRAME.latent_id[row])})


def color_at(reader: Reader, run: str, latent: int) -> np.ndarray:
    x, y = reader.spot(run, latent)
    shot = reader.page.screenshot(clip={"x": x - 1, "y": y - 1, "width": 3, "height": 3})
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=int)[1, 1]


def near(color: np.ndarray, wanted: str, within: int = 70) -> bool:
    return bool(np.abs(color - [int(wanted[i : i + 2], 16) for i in (1, 3, 5)]).max() <= within)
