"""Tests that the documentation shows what happens: help texts, README commands, docstring examples, the notebook."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Mapping
from functools import cache
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
from sae_geometry.cli.commands import COMMANDS
from sae_geometry.cli.lifecycle import FAILED, INTERRUPTED, TERMINATED, UNDER, WRONG_USE
from sae_geometry.embedding import backends
from sae_geometry.io.redaction import _KEYS
from sae_geometry.results.columns import LABELS, TABLES, Column

ROOT = Path(sg.__file__).parents[1]
COMMANDS_PAGE = ROOT / "docs" / "commands.md"
RESULTS_PAGE = ROOT / "docs" / "read-your-results.md"


def help_of(command: str) -> str:
    result = CliRunner().invoke(
        app, [*command.split(), "--help"], prog_name="sae-geometry", env={"COLUMNS": "100", "NO_COLOR": "1"}
    )
    assert result.exit_code == 0
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def commands() -> list[str]:
    return [c.name for c in app.registered_commands if c.name]


def commands_page() -> str:
    """Return the page of every command's help. `python tests/test_docs.py` writes it."""
    parts = ["# Commands\n\nEvery command with its help, as printed by `--help`.\n"]
    parts += [f"## {name}\n\n```text\n{help_of(name)}\n```\n" for name in commands()]
    return "\n".join(parts)


def test_every_commands_help_is_quoted_word_for_word():
    """Only CI's releases are compared: others write `{A}` for A, or wrap lines elsewhere."""
    others = [
        f"{name} {version(name)}" for name in ("typer", "click", "rich") if version(name) != str(constraints()[name])
    ]
    if others:
        pytest.skip(f"help is laid out by {', '.join(others)}, the page by what constraints.txt names")
    assert COMMANDS_PAGE.read_text(encoding="utf-8") == commands_page(), "run: python tests/test_docs.py"


RESULTS_INTRO = """# Read your results

A results folder has tables as Parquet, lists as CSV, `summary.json` with every number and its provenance,
`report.html` to send, and `figures/`. `sg.read` reads the tables and the summary:

```python
import sae_geometry as sg

sg.save(sg.within("demo:local-narrow-seed0"), "redundancy", formats=["png"])
tables, summary = sg.read("redundancy")
closest = tables["matches"].nlargest(3, "cosine")
print(closest[["latent_id", "partner_id", "cosine"]].to_string(index=False))
```

<!-- output -->
```text
{output}```

Below is every column of every table. A latent id is the latent's index in its checkpoint, even if other latents were
dropped. A cosine is signed and lies in −1…1, even if pairs were made by |cosine|. The [glossary](glossary.md) defines
the terms.
"""


def column_rows(columns: Mapping[str, Column]) -> list[str]:
    rows = [f"| `{name}` | {unit} | {meaning} |" for name, (unit, meaning) in columns.items()]
    return ["| Column | Unit | Meaning |", "|---|---|---|", *rows, ""]


def results_page() -> str:
    """Return the page of every column. `python tests/test_docs.py` writes it."""
    parts = [RESULTS_INTRO.replace("{output}", results_output())]
    for table in TABLES:
        parts += [f"## {table.file} ({', '.join(table.commands)})", "", f"One row per {table.row}.", ""]
        parts += column_rows(table.columns)
    parts += [
        "## Labels",
        "",
        "With `--unembed` or `--labels`, tables and lists have these columns too: for partners with `partner_`, "
        "`nearest_` or `next_` in front, in `consensus.parquet` with the run's name and a colon, in `chains.parquet` "
        "with `latent_L:`.",
        "",
        *column_rows(LABELS),
    ]
    return "\n".join(parts)


def results_output() -> str:
    """Return the output of the page's code block as the page shows it; tests/test_pages.py runs the block."""
    found = re.search(r"<!-- output -->\n```text\n(.*?)```", RESULTS_PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    return found[1]


def test_the_page_of_results_has_every_column():
    assert RESULTS_PAGE.read_text(encoding="utf-8") == results_page(), "run: python tests/test_docs.py"


@pytest.mark.parametrize("name", commands())
def test_help_names_the_tables_that_the_page_describes(name):
    summary = re.split(r"^(?:Arguments|Options):", help_of(name), flags=re.M)[0]
    assert ("report.html" in summary) == ("summary.json" in summary)
    said = set(re.findall(r"[\w-]+\.(?:parquet|csv)\b", summary))
    assert said == {t.file for t in TABLES if name in {command.split()[0] for command in t.commands}}


def test_every_variable_and_every_exit_code_is_on_its_page():
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "sae_geometry").rglob("*.py"))
    read = set(re.findall(r"\bSAE_GEOMETRY_[A-Z_]+", source)) | set(_KEYS)
    for found in re.findall(r'environ(?:\.get\(|\[)"(\w+)"|"(\w+)" (?:not )?in os\.environ', source):
        read |= set(found)
    read.discard("")
    assert len(read) >= 10
    assert read <= set(re.findall(r"`([A-Z][A-Z_]+)`", page))
    codes = {FAILED, WRONG_USE, UNDER, INTERRUPTED, TERMINATED}
    assert set(map(int, re.findall(r"^\| (\d+) \|", page, re.M))) == {0, *codes}


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


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    remember(monkeypatch)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:  # triton exists on Linux only.
        pytest.skip(f"{name} needs {error.name}") if error.name == "triton" else pytest.fail(str(error))
    results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"


@pytest.mark.usefixtures("blank_figures")
def test_the_readme_python_blocks_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    remember(monkeypatch)
    monkeypatch.setattr(backends, "epochs_for", lambda n: 5)  # A layout of 3,072 points would take seconds.
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert blocks
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)


def test_every_shell_line_of_the_readme_is_one_that_runs(monkeypatch, tmp_path):
    """Run our commands with --dry-run, and check that whatever other commands refer to exists."""
    monkeypatch.chdir(tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    seen = []
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S):
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            seen.append(program)
            if program == "sae-geometry":
                result = CliRunner().invoke(app, [*words, "--dry-run"])
                assert result.exit_code == 0, f"{line}: {result.stderr}"
            elif program == "make":
                assert set(words) <= set(targets), line
            elif program == "pip":
                assert words[0] == "install", line
                assert re.fullmatch(r"\.\[(\w+)\]", words[1])[1] in project["optional-dependencies"], line
            else:
                known = [f"git clone {project['urls']['Source']}", "cd sae-geometry", "source .venv/bin/activate"]
                assert " ".join((program, *words)) in known, line
    assert (
        seen.index("git") < seen.index("make") < seen.index("source") < seen.index("pip") < seen.index("sae-geometry")
    )
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_readme_names_only_commands_and_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^sae-geometry (\w[\w-]*).*?  +([^#\s].*)$", text, re.M)
    assert listed == [(name, summary) for group in COMMANDS.values() for name, (summary, _) in group.items()]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        assert (ROOT / target).exists(), target
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for name in re.findall(r"make (\w+)", text):
        assert name in targets


def test_figures_have_sidecars_that_say_how_they_were_made():
    import json

    pictures = sorted((ROOT / "figures").glob("*.png"))
    assert pictures
    load = cache(sg.load)
    for picture in pictures:
        sidecar = json.loads(picture.with_suffix(".json").read_text())
        assert {"command", "commit", "runs"} <= sidecar.keys()
        for run in sidecar["runs"]:
            assert load(run["address"], run.get("latents", "alive")).fingerprint == run["fingerprint"]


def texts_of(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the printed output of a notebook's cells, without figures and the evidence for a UMAP."""
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
    assert texts == texts_of(fresh), "run them again: make notebooks"
    warned = [o for c in fresh.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert not warned


if __name__ == "__main__":
    COMMANDS_PAGE.parent.mkdir(exist_ok=True)
    COMMANDS_PAGE.write_text(commands_page(), encoding="utf-8")
    RESULTS_PAGE.write_text(results_page(), encoding="utf-8")
