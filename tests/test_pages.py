"""Tests of the pages: they build without a warning, fetch nothing, and every code block prints what they show."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from memo import remember
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app

ROOT = Path(sg.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in DOCS.rglob("*.md"))

# These are the only blocks that are not run, by page and first line.
NOT_RUN = {
    ("docs/how-to/wandb.md", "sae-geometry runs sparsify/gpt2 --kind local --layer 6"),
    ("docs/how-to/wandb.md", "sae-geometry compare demo:local-seed0 demo:local-seed1 \\"),
    (
        "docs/how-to/huggingface.md",
        "sae-geometry inspect hf://apollo-research/e2e-saes-gpt2/local_similar_ce_layer_6.pt",
    ),
    ("docs/how-to/cluster.md", "sae-geometry seeds run1 run2 run3 --dask tcp://HOST:8786"),
    ("docs/how-to/gpu.md", "sae-geometry compare runA runB --device cuda"),
    ("docs/how-to/gpu.md", "import sae_geometry as sg"),
}


@dataclass(frozen=True)
class Block:
    """Fenced block, and the comment on the line above it."""

    language: str
    text: str
    said: str

    @property
    def first_line(self) -> str:
        return self.text.splitlines()[0]


def blocks(page: str) -> Iterator[Block]:
    """Return the fenced blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for said, language, body in re.findall(r"(?:<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```", text, re.S | re.M):
        yield Block(language, body, said)


def run_python(text: str, page: str, scope: dict[str, object]) -> str:
    """Return what a Python block prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, page, "exec"), scope)
    return printed.getvalue()


def run_shell(text: str) -> str:
    """Return what a shell block prints; it may contain only our own command."""
    printed = ""
    for line in text.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "sae-geometry", line
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.stderr
        printed += result.stdout
    return printed


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank_figures: None) -> Iterator[None]:
    """Give each page a separate folder, cache and environment."""
    monkeypatch.chdir(tmp_path)
    remember(monkeypatch)
    monkeypatch.setenv("SAE_GEOMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WANDB_DIR", raising=False)
    with mock.patch.dict(os.environ):
        yield


with_code = [p for p in PAGES if any(b.language in {"python", "bash"} for b in blocks(p))]


@pytest.mark.parametrize("page", with_code)
def test_every_block_runs_and_prints_what_the_page_says(page: str, elsewhere: None) -> None:
    scope: dict[str, object] = {}
    printed = ""
    for block in blocks(page):
        if block.said.startswith("not run: "):
            continue
        if block.language == "python":
            printed = run_python(block.text, page, scope)
        elif block.language == "bash":
            printed = run_shell(block.text)
        elif block.said == "output":
            assert printed == block.text
        else:
            assert block.language in {"text", "json"}, f"{page}: a block in {block.language or 'no language'}"


def test_only_blocks_that_need_a_network_or_a_gpu_are_not_run() -> None:
    marked = {(page, b.first_line) for page in PAGES for b in blocks(page) if b.said.startswith("not run: ")}
    assert marked == NOT_RUN
    reasons = {b.said for page in PAGES for b in blocks(page) if b.said.startswith("not run: ")}
    assert reasons == {"not run: needs the network", "not run: needs an account", "not run: needs a GPU"}


def test_the_command_lines_that_are_not_run_are_at_least_understood() -> None:
    for page, first in NOT_RUN:
        words = shlex.split(first.rstrip("\\"))
        if words[0] == "sae-geometry":
            text = (DOCS / "commands.md").read_text(encoding="utf-8")
            section = re.search(rf"^## {words[1]}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
            assert section, page
            for option in (w for w in words if w.startswith("--")):
                assert option in section[1], f"{page}: {option}"


def test_the_reference_is_the_whole_public_list() -> None:
    named = re.findall(r"^::: sae_geometry\.(?:[\w.]+\.)?(\w+)$", (DOCS / "reference.md").read_text(), re.M)
    assert sorted(named) == sorted(set(sg.__all__) - {"__version__"})


def test_every_figure_on_a_page_comes_from_figures() -> None:
    shown = {
        target
        for page in PAGES
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    }
    assert shown
    assert not list(DOCS.rglob("*.png")) + list(DOCS.rglob("*.svg"))
    for target in shown:
        name = Path(target)
        assert name.parent.name == "figures", target
        assert (ROOT / "figures" / name.name).exists(), target
        assert (ROOT / "figures" / name.with_suffix(".json").name).exists(), f"{target} has no sidecar"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pages as in CI, where any warning fails."""
    pytest.importorskip("mkdocs", reason="the pages are built with the docs extra: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def test_the_pages_build_without_a_warning(site: Path) -> None:
    assert {p.relative_to(site).with_suffix(".md").as_posix() for p in site.rglob("*.html")} == {
        p.removeprefix("docs/") for p in PAGES
    } | {"404.md"}


def test_the_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=\"(https?:[^\"]+)\"")
    linked = re.compile(r"<link\b[^>]*rel=\"(?:stylesheet|preconnect|preload|icon)\"[^>]*href=\"(https?:[^\"]+)\"")
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert fetched.findall(text) + linked.findall(text) == [], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*['\"]?https?:", sheet.read_text(encoding="utf-8")), sheet


def test_every_link_leads_somewhere(site: Path) -> None:
    """Check files and anchors in the built pages, included pages too."""
    ids = {p: set(re.findall(r"\bid=\"([^\"]+)\"", p.read_text(encoding="utf-8"))) for p in site.rglob("*.html")}
    for page in ids:
        if page.name == "404.html":
            continue
        for target in re.findall(r"<a\b[^>]*\bhref=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), f"{page.name} links to {target}"
            if anchor and there in ids and not anchor.startswith("__"):
                assert anchor in ids[there], f"{page.name} links to {target}"


def test_the_mathematics_is_included_not_copied(site: Path) -> None:
    for page, source in (("sweep", "kernels"), ("matching", "matching")):
        built = (site / "mathematics" / f"{page}.html").read_text(encoding="utf-8")
        title = (ROOT / "sae_geometry" / source / "README.md").read_text(encoding="utf-8").splitlines()[0]
        assert title.removeprefix("# ") in built
        assert len((DOCS / "mathematics" / f"{page}.md").read_text().splitlines()) == 1


def test_search_works_in_pages_opened_from_disk(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.goto((site / "index.html").as_uri())
        page.fill("input[name=query]", "rarefaction", force=True)
        for _ in range(300):  # Input from before the page listens is lost.
            if page.locator(".md-search-result__item a").count():
                break
            page.dispatch_event("input[name=query]", "keyup")
            page.wait_for_timeout(100)
        found = page.eval_on_selector_all(".md-search-result__item a", "links => links.map(link => link.href)")
        browser.close()
    assert any("glossary.html" in link or "reference.html" in link for link in found), found
