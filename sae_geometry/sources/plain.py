"""Parse text from other sources into strings, numbers, lists and tables, at a cost bounded by its length.

PyYAML's own loader raises KeyError, IndexError, OverflowError and more for tags that do not fit their values, and takes
unbounded time for merges of merges; json returns integers too large to print.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import yaml

_MAX_PARTS = 20_000
_MAX_DEPTH = 64
_LONGEST_NUMBER = 40
_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float")}


def is_plain(value: object) -> bool:
    """Return whether a value is text, a boolean, or a number that fits in 64 bits."""
    return isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) < 1 << 63)


def parse_json(text: str | bytes, table: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Return the value of a JSON text; integers of twenty or more digits become floats.

    Args:
        table: function that makes a table from key–value pairs.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_int=_whole, object_pairs_hook=table)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def parse_yaml(text: str | bytes, table: Callable[[list[tuple[str, Any]]], dict[str, Any]] = dict) -> Any:
    """Return the value of a YAML text, read as data.

    Keys are text as written. A scalar is text if its tag does not fit or is not that of a plain value. An alias is the
    same object as its anchor, so it costs nothing.

    Args:
        table: function that makes a table from key–value pairs.

    Raises:
        ValueError: the text is not YAML, refers to itself, or exceeds the limits on parts and depth.
    """
    try:
        return _Document(text, table).value
    except (yaml.YAMLError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"not YAML: {error}") from error


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


class _Document:
    """Build the first document of a text from the parser's events."""

    def __init__(self, text: str | bytes, table: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> None:
        self.loader, self.table = yaml.SafeLoader(text), table
        self.parts = 0
        self.named: dict[str, Any] = {}
        self.value = None
        while self.loader.check_event(yaml.StreamStartEvent, yaml.DocumentStartEvent):
            self.loader.get_event()
        if not self.loader.check_event(yaml.StreamEndEvent):
            self.value = self._value(0)

    def _count(self, n: int) -> None:
        self.parts += n
        if self.parts > _MAX_PARTS:
            raise ValueError(f"more than {_MAX_PARTS:,} parts")

    def _value(self, depth: int) -> Any:
        event: Any = self.loader.get_event()
        self._count(1)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self.named[str(event.anchor)]
        found: Any
        if isinstance(event, yaml.MappingStartEvent):
            found = self._table(depth + 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            found = []
            while not self.loader.check_event(yaml.SequenceEndEvent):
                found.append(self._value(depth + 1))
            self.loader.get_event()
        else:
            found = self._scalar(event)
        if event.anchor is not None:
            self.named[str(event.anchor)] = found
        return found

    def _table(self, depth: int) -> dict[str, Any]:
        pairs: list[tuple[str, Any]] = []
        merged: list[Any] = []
        while not self.loader.check_event(yaml.MappingEndEvent):
            key = self.loader.peek_event()
            self._value(depth)
            value = self._value(depth)
            if isinstance(key, yaml.ScalarEvent) and key.value == "<<":
                merged += value if isinstance(value, list) else [value]
            elif isinstance(key, yaml.ScalarEvent):
                pairs.append((key.value, value))
        self.loader.get_event()
        table = self.table(pairs)
        for other in merged:
            if isinstance(other, dict):
                self._count(len(other))
                table = other | table
        return table

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        tag = self.loader.resolve(yaml.ScalarNode, event.value, event.implicit) if event.tag is None else event.tag
        if tag in _SCALARS and len(event.value) <= _LONGEST_NUMBER:
            with suppress(ValueError, LookupError, OverflowError):
                found = self.loader.construct_object(yaml.ScalarNode(tag, event.value))
                return found if found is None or is_plain(found) else float(found)
        return event.value
