"""What the documents show is what happens: help texts, README commands, docstring examples, the notebook."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from memo import remember
from nbclient import NotebookClient
from test_floors import constraints
from typer.testing import CliRunner

import sae_geometry as sg
from sae_geometry.cli import app

ROOT = Path(sg.__file__).parents[1]
COMMANDS_PAGE = ROOT / "docs" / "commands.md"


def help_of(command: str) -> str:
    result = CliRunner().invoke(
        app, [*command.split(), "--help"], prog_name="sae-geometry", env={"COLUMNS": "100", "NO_COLOR": "1"}
    )
    assert result.exit_code == 0
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def commands() -> list[str]:
    return [c.name for c in app.registered_commands if c.name]


def commands_page() -> str:
    """The page of every command's help, as it should be. `python tests/test_docs.py` writes it."""
    parts = ["# Commands\n\nEvery command with its help, as printed by `--help`.\n"]
    parts += [f"## {name}\n\n```text\n{help_of(name)}\n```\n" for name in commands()]
    return "\n".join(parts)


def test_every_commands_help_is_quoted_word_for_word():
    """By the releases that lay help out in CI: others write `{A}` for A, or fold elsewhere."""
    others = [
        f"{name} {version(name)}" for name in ("typer", "click", "rich") if version(name) != str(constraints()[name])
    ]
    if others:
        pytest.skip(f"help is laid out by {', '.join(others)}, the page by what constraints.txt names")
    assert COMMANDS_PAGE.read_text(encoding="utf-8") == commands_page(), "run: python tests/test_docs.py"


@pytest.mark.parametrize("name", commands())
def test_every_option_has_a_help_text(name):
    text = help_of(name)
    assert len(text.splitlines()) > 6
    for match in re.finditer(r"^  (-\S.*?)(?:  +(\S.*))?$", text, re.M):
        option, helped = match[1], match[2]
        following = text[match.end() :].lstrip("\n").splitlines()
        assert helped or (following and following[0].startswith("      ")), f"{name} {option} has no help"


def modules() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(sg.__path__, "sae_geometry.") if not m.name.endswith("__main__")]
    return ["sae_geometry", *sorted(names)]


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    remember(monkeypatch)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:  # triton is there on Linux only
        pytest.skip(f"{name} needs {error.name}") if error.name == "triton" else pytest.fail(str(error))
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"


def test_the_readme_python_blocks_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    remember(monkeypatch)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert blocks
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)


def test_the_readme_names_only_commands_and_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"^sae-geometry (\w[\w-]*)", text, re.M):
        assert name in commands()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        assert (ROOT / target).exists(), target
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for name in re.findall(r"make (\w+)", text):
        assert name in targets


def test_figures_have_sidecars_that_say_how_they_were_made():
    import json

    pictures = sorted((ROOT / "figures").glob("*.png"))
    assert pictures
    for picture in pictures:
        sidecar = json.loads(picture.with_suffix(".json").read_text())
        assert {"command", "commit", "runs"} <= sidecar.keys()
        for run in sidecar["runs"]:
            assert sg.load(run["address"], run.get("latents", "alive")).fingerprint == run["fingerprint"]


def texts_of(notebook: nbformat.NotebookNode) -> list[str]:
    """The numbers on the page: what the cells print, without pictures and what a UMAP says of itself."""
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    found = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return [t for t in found if not t.startswith(("<Figure", "<Axes")) and "trustworthiness" not in t]


@pytest.mark.parametrize("name", ["quickstart", "two_seeds"])
def test_a_notebook_runs_and_its_outputs_are_kept(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook, fresh = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    kept = [c for c in notebook.cells if c.cell_type == "code" and c.get("outputs")]
    assert len(kept) >= 8
    NotebookClient(fresh, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    texts = texts_of(notebook)
    assert any("shared one to one" in t for t in texts)
    assert texts == texts_of(fresh), "run them anew: make notebooks"
    warned = [o for c in fresh.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert not warned


if __name__ == "__main__":
    COMMANDS_PAGE.parent.mkdir(exist_ok=True)
    COMMANDS_PAGE.write_text(commands_page(), encoding="utf-8")
