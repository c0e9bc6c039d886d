"""Tests of configurations that would take much memory or time, and of what YAML means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from limited import limited

from sae_geometry.sources import load
from sae_geometry.sources.layouts.config import read_config
from sae_geometry.sources.plain import parse_json, parse_yaml


def merges(levels: int, width: int) -> str:
    """Return YAML mappings that merge the previous one many times: a few hundred bytes, but width^levels merges."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * width)}]}}" for i in range(1, levels)]
    return "\n".join(lines)


def laughs(levels: int) -> str:
    return "\n".join(["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)])


@pytest.mark.parametrize(
    "document",
    [
        merges(9, 9),
        merges(30, 4),
        laughs(60),
        "a: &a [*a]",
        "a: &a {<<: *a}",
        "[" * 100_000,
        "{a: " * 50_000,
        "- " * 60_000,
        "? " * 60_000,
        "a: [" + "b, " * 80_000 + "]",
        "a: " + "1:" * 100_000 + "1",
        "a: 0x" + "f" * 200_000,
        "a: !!bool maybe",
        "a: !!int ''",
        "a: !!int '-'",
        "a: !!float 'e'",
        "a: !!float ''",
        "a: !!null {}",
        "a: !!timestamp 2020-99-99",
        "a: 2020-99-99",
        "a: !!binary '%'",
        "a: !!set {b, c}",
        "a: !!omap [b]",
        "a: !!pairs [b]",
        "a: !!python/object/apply:os.system [id]",
        "a: !<tag:yaml.org,2002:int> [x]",
        "[a]: b",
        "? {a: b}\n: c",
        "? !!set {a}\n: c",
        '"\\UFFFFFFFF": 1',
        '"\\uD800": 1',
        "%YAML 9.9\n---\na",
        "%TAG ! !\n---\n!x a",
        "--- a\n--- b",
        "*a",
        "<<: 3",
        "<<: [3, *a]",
        "\0",
        "a: 1e999999999",
        "a: 190:20:30.15:" + "59:" * 10,
    ],
)
@pytest.mark.parametrize("name", ["config.yaml", "cfg.json"])
def test_configurations_of_nonsense(document: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(document)
    np.save(tmp_path / "x.npy", np.eye(3, 5, dtype=np.float32))
    with limited():
        table, unread = read_config((tmp_path / name,))
        assert isinstance(table, dict)
        assert all("\n" not in note for note in unread)
        assert load(tmp_path / "x.npy").n_latents == 3


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ("a: &x {b: 1, c: [1.5, no, ~, text]}\nd: *x", {"a": (t := {"b": 1, "c": [1.5, False, None, "text"]}), "d": t}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", {"a": {"b": 1, "c": 3}}),
        ("1: one\nyes: two", {"1": "one", "yes": "two"}),
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: '1'\nb: 1", {"a": "1", "b": 1}),
        ("", None),
    ],
)
def test_what_yaml_means(document: str, value: object) -> None:
    assert parse_yaml(document) == value


def test_integers_beyond_any_format_are_floats() -> None:
    assert parse_json('{"a": 9223372036854775807, "b": 1' + "0" * 400 + "}") == {"a": (1 << 63) - 1, "b": float("inf")}
