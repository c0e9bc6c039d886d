"""Read small JSON and YAML configuration files next to the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from sae_geometry.sources.plain import parse_json, parse_yaml

_MAX_BYTES = 4 << 20
_MAX_YAML_BYTES = 128 << 10  # PyYAML parses slowly in pure Python.
_MAX_TEXT = 1 << 16
_MAX_TABLES = 200  # maximum number of tables searched for a name
_MAX_DEPTH = 4
_MAX_NAMES = 5000  # maximum number of names in all tables, which every lookup visits


def read_config(paths: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Merge configuration files, with priority for earlier files; return a note on each file that cannot be read."""
    merged: dict[str, Any] = {}
    unread = []
    for path in paths:
        try:
            merged = _read(path) | merged
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())[:120]
            unread.append(f"{path.name} cannot be read ({why}), so any model and hook point in it are unknown")
    return merged, tuple(unread)


def bounded(config: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the configuration and no notes, or an empty configuration and a note if there are too many names."""
    seen, inside = 0, [config]
    while inside and seen <= _MAX_NAMES:
        table = inside.pop()
        seen += len(table)
        inside += [value for value in islice(table.values(), _MAX_NAMES) if isinstance(value, dict)]
    if seen <= _MAX_NAMES:
        return config, ()
    return {}, (f"the configuration has more than {_MAX_NAMES:,} names and was not read",)


def lookup(table: Any, path: str) -> Any:
    """Return the value at a dotted path in a table; None if the path is absent."""
    value = table
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = _inner(value[step])
    return value


def tables(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a configuration and every table inside it, outer tables first.

    Trainers nest their settings in "metadata", "trainer", "sae" or "cfg", in W&B's {"value": …}, or in JSON text.
    """
    level, seen = [config], 0
    for _ in range(_MAX_DEPTH):
        inner: list[Mapping[str, Any]] = []
        for table in level:
            seen += 1
            if seen > _MAX_TABLES:
                return
            yield {key: _inner(value) for key, value in table.items()}
            inner += [v for value in table.values() if isinstance(v := _inner(value), Mapping)]
        level = inner


def plain_values(table: Mapping[str, Any]) -> dict[str, Any]:
    """Unwrap the configuration of a W&B run: `{"seed": {"value": 0}, "_wandb": …}` becomes `{"seed": 0}`."""
    return {k: _inner(v) for k, v in table.items() if isinstance(k, str) and k not in ("_wandb", "wandb_version")}


def _inner(value: Any) -> Any:
    """Unwrap W&B's {"desc": …, "value": …} to the value, and parse JSON text to a table."""
    if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", "desc"}:
        return value["value"]
    if isinstance(value, str) and value.startswith("{") and value.endswith("}") and len(value) < _MAX_TEXT:
        with suppress(ValueError):
            return parse_json(value)
    return value


def _read(path: Path) -> dict[str, Any]:
    is_yaml = path.suffix in {".yaml", ".yml"}
    size, most = path.stat().st_size, _MAX_YAML_BYTES if is_yaml else _MAX_BYTES
    if size > most:
        raise ValueError(f"the file has {size:,} bytes, above the limit of {most:,}")
    text = path.read_bytes()  # Both parsers detect the encoding from a byte order mark.
    table = parse_yaml(text) if is_yaml else parse_json(text)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise ValueError(f"the file contains a {type(table).__name__}, not a table")
    return plain_values(table)
