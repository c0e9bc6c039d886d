"""Configuration files beside the weights: JSON or YAML, small, read as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_MAX_BYTES = 4 << 20
_MAX_YAML_BYTES = 256 << 10  # the pure Python YAML reader is slow


def read_config(paths: tuple[Path, ...]) -> dict[str, Any]:
    """Their top-level keys as one table, the first file that has a key winning. Unreadable files count as empty."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _read(path) | merged
    return merged


def lookup(table: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None if it is not there."""
    value: Any = table
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value


def first(table: Mapping[str, Any], paths: tuple[str, ...], kind: type) -> Any:
    """The first value of type `kind` among dotted paths; None if there is none."""
    return next((v for p in paths if isinstance(v := lookup(table, p), kind) and v != ""), None)


def _read(path: Path) -> dict[str, Any]:
    is_yaml = path.suffix in {".yaml", ".yml"}
    try:
        if path.stat().st_size > (_MAX_YAML_BYTES if is_yaml else _MAX_BYTES):
            return {}
        text = path.read_text(encoding="utf-8")
        table = yaml.safe_load(text) if is_yaml else json.loads(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return {k: v for k, v in table.items() if isinstance(k, str)} if isinstance(table, dict) else {}
