"""Tests that messages advise only what exists: options of the command that shows them, and never Python code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import typer.main

import sae_geometry as sg
from sae_geometry.cli import app
from sae_geometry.cli.lifecycle import _sentence, in_options

PACKAGE = Path(sg.__file__).parent
COMMANDS = {
    name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}
READ = {
    "compare", "match", "within", "seeds", "agreement", "span", "split", "truth", "umap", "drift", "estimate", "flow",
    "nearest", "tokens", "project",
}  # fmt: skip
TWO = READ - {"within", "drift", "estimate", "tokens"}
SWEEP = READ - {"drift"}
SAVE = READ - {"estimate"}
# The commands that can show the messages of a subpackage. A new option in a message needs a row here.
WHO = {
    "--drop-bad": READ,
    "--latents": READ - {"drift"},
    "--offline": READ | {"inspect", "fetch"},
    "--latent-axis": READ | {"inspect"},
    "--allow-mismatch": TWO,
    "--memory": SWEEP,
    "--overwrite": SAVE | {"explore"},
    "--resume": SAVE - {"drift"},
    "--on": {"compare", "seeds"},
    "--device": READ - {"drift"},
    "--dask": {"compare", "match", "seeds", "umap"},
    "--dask-load": {"compare", "match", "seeds", "umap"},
    "--by": {"runs"},
    "--fold": {"flow"},
    "--html": {"umap"},
    "--map": {"compare", "nearest"},
    "--labels": SAVE - {"span", "project", "tokens"},
    "--unembed": SAVE - {"span", "project"},
    "--pairing": {"compare"},
    "--verbose": READ - {"estimate"},
}  # fmt: skip
ELSEWHERE = {"--help", "--version"}


@cache
def texts(path: Path) -> list[str]:
    """Return the string literals of a file except docstrings; in f-strings, … replaces each inserted value."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docs = {
        id(node.body[0].value)
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {id(v) for node in nodes if isinstance(node, ast.JoinedStr) for v in node.values}
    found = []
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (docs | parts):
            found.append(node.value)
    return found


def advised(text: str) -> list[str]:
    """Return the options that a message names, without the style-sheet properties that look like options."""
    return [] if "var(--" in text else re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)


LIBRARY = [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent.name != "cli"]


def test_an_option_that_a_message_advises_exists_where_it_can_be_shown() -> None:
    advice = {(o, str(p.relative_to(PACKAGE))) for p in LIBRARY for t in texts(p) for o in advised(t)}
    assert {option for option, _ in advice} >= {"--drop-bad", "--allow-mismatch", "--memory", "--offline"}
    unknown = {(option, where) for option, where in advice if option not in WHO and option not in ELSEWHERE}
    assert unknown == set(), "add it to WHO with the commands that can show it"
    missing = [(o, n) for o in {option for option, _ in advice} - ELSEWHERE for n in WHO[o] if o not in COMMANDS[n]]
    assert missing == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda p: p.stem)
def test_an_option_that_a_command_advises_is_its_own(path: Path) -> None:
    known = COMMANDS.get(path.stem, set().union(*COMMANDS.values()))
    assert {o for t in texts(path) for o in advised(t)} - known - ELSEWHERE == set()


@pytest.mark.parametrize(
    ("python", "line"),
    [
        ("pass drop_bad=True (--drop-bad) to drop", "pass --drop-bad to drop"),
        ('load it with latents="all" to look', "load it with --latents all to look"),
        ('use on="decoder"', "use --on decoder"),
        ("is for matching='optimal'; got 'x'", "is for --matching optimal; got 'x'"),
        ("latent_axis=1 takes its columns", "--latent-axis 1 takes its columns"),
        ("raise it with settings(memory='75MB') (--memory 75MB), or", "raise it with --memory 75MB, or"),
        ("choose one by adding ::layer=2, ::latent_axis=1", "choose one by adding ::layer=2, ::latent_axis=1"),
        (
            "if 'x' is the decoder, call sae_geometry.Dictionary.from_decoder(tensors['x'], latent_axis=1), where "
            "latent_axis is the axis that indexes latents",
            "if 'x' is the decoder, save only the decoder as .npy and give that file with ::latent_axis=1, the axis of "
            "its latents",
        ),
        (
            "pass the decoder to sae_geometry.Dictionary.from_decoder(decoder, latent_axis=…), where latent_axis is "
            "the axis that indexes latents",
            "save only the decoder as .npy and give that file, with ::latent_axis=1 if its columns are latents",
        ),
        ("by unembed='hf://org/model' (--unembed hf://org/model) or", "by --unembed hf://org/model or"),
        ("write NAME=ADDRESS or https://x.y/z?a=1", "write NAME=ADDRESS or https://x.y/z?a=1"),
    ],
)
def test_messages_on_the_command_line_name_options(python: str, line: str) -> None:
    assert in_options(python) == line


def test_no_message_asks_a_command_line_for_python() -> None:
    python = re.compile(
        r"\b(?:sg|sae_geometry|np|torch)\.\w|\bin Python\b|(?<![:\w./?&-])[a-z]+_[a-z_]+=(?!…)\S|=(?:True|False|None)\b"
    )
    shown = {t for p in LIBRARY for t in texts(p) if advised(t)}
    assert {t for t in shown if python.search(in_options(t))} == set()


THINGS = "latents|regions|minutes|threads|cores|tiles|checkpoints"
TWO_OR_MORE = {
    "comparisons/inference.py", "dictionary.py", "io/activity.py", "embedding/regions.py", "matching/shared.py",
    "comparisons/drift.py",  # A run has at least two checkpoints.
    # These say "of N latents" about all latents of a dictionary.
    "comparisons/by_index.py", "comparisons/flow_result.py", "comparisons/ground_truth.py",
    "comparisons/encoder_agreement.py", "comparisons/nearest_result.py", "comparisons/within.py",
    "labels/attach.py", "labels/tokens.py", "pairwise/mapping.py", "plots/flow.py", "plots/nearest.py",
    "plots/splitting.py",
    "embedding/projection.py",  # Quality takes at least two neighbors.
}  # fmt: skip


def test_one_thing_is_not_plural() -> None:
    """Require `counted(n, noun)`, which handles the singular, unless there are always two or more things."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in texts(path)
        if re.search(rf"… (?:[a-z-]+ )?(?:{THINGS})\b", text)
    }
    assert found <= TWO_OR_MORE


def test_out_of_memory_is_not_reported_as_a_bug():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error in (caught.value, MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory. Tried …")):
        assert _sentence(error) == "out of memory; try --device cpu, or a machine with more memory"
