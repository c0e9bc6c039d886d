"""Parse untrusted JSON and YAML into strings, numbers, lists and dicts, at a cost bounded by the length of the text.

PyYAML's own loader raises KeyError, IndexError, OverflowError and other exceptions if a tag does not fit its value, and
takes unbounded time for nested merges. The json module returns integers that are too large to print.
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
    """Return whether a value is a string, a boolean, a float, or an integer that fits in 64 bits."""
    return isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) < 1 << 63)


def parse_json(text: str | bytes, table: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """Parse JSON text; `table` builds each object from its pairs, and integers of 20 or more characters become floats.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_int=_whole, object_pairs_hook=table)
    except RecursionError as error:
        raise ValueError("the text is nested too deeply") from error


def parse_yaml(text: str | bytes, table: Callable[[list[tuple[str, Any]]], dict[str, Any]] = dict) -> Any:
    """Parse YAML text as plain data; `table` builds each mapping from its pairs.

    Keys remain strings, as written, and so do scalars that are not null, a boolean or a number. An alias is the same
    object as its anchor, so it needs no memory.

    Raises:
        ValueError: the text is not YAML, refers to itself, has too many nodes, or is nested too deeply.
    """
    try:
        loader = _Loader(text, table)
        return loader.value_of(loader.get_node()) if loader.check_node() else None
    except (yaml.YAMLError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"not YAML: {error}") from error


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)


class _Loader(yaml.SafeLoader):
    """YAML loader that limits the number and depth of nodes, and converts them to plain values."""

    def __init__(self, text: str | bytes, table: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> None:
        super().__init__(text)
        self.table, self.parts, self.depth = table, 0, 0
        self.complete: dict[yaml.Node, Any] = {}  # An alias has the same node as its anchor.

    def count(self, n: int) -> None:
        self.parts += n
        if self.parts > _MAX_PARTS:
            raise ValueError(f"more than {_MAX_PARTS:,} parts")

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.count(1)
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")
        if not self.check_event(yaml.AliasEvent):  # YAML permits redefining an anchor, PyYAML does not.
            self.anchors.pop(self.peek_event().anchor, None)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def value_of(self, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if node not in self.complete:
            is_list = isinstance(node, yaml.SequenceNode)
            self.complete[node] = [self.value_of(item) for item in node.value] if is_list else self._mapping(node)
        return self.complete[node]

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        named = [(k.value, self.value_of(value)) for k, value in node.value if isinstance(k, yaml.ScalarNode)]
        found = self.table([(key, value) for key, value in named if key != "<<"])
        for merged in (value for key, value in named if key == "<<"):
            for other in merged if isinstance(merged, list) else [merged]:
                if isinstance(other, dict):
                    self.count(len(other))
                    found = other | found
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _SCALARS and len(node.value) <= _LONGEST_NUMBER:
            with suppress(ValueError, LookupError, OverflowError):
                found = self.construct_object(node)
                return found if found is None or is_plain(found) else float(found)
        return node.value
