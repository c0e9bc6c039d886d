"""Checks that the columns of a table read from disk hold the expected kinds of values.

A column of integers with missing values counts as numbers, and a column may have no values at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_geometry.io.escaping import shown

if TYPE_CHECKING:
    import pandas as pd

TEXTS, MAYBE_TEXTS = frozenset({"strings"}), frozenset({"strings", "no values"})
IDS, NUMBERS = frozenset({"integers"}), frozenset({"integers", "numbers", "no values"})
FLOATS, TRUTHS = frozenset({"numbers", "no values"}), frozenset({"booleans", "no values"})
_LISTED = 3


def check_columns(
    table: pd.DataFrame, wanted: Mapping[str, frozenset[str]], maybe: Mapping[str, frozenset[str]], folder: Path
) -> None:
    """Check that a table has the `wanted` columns, and that these and the `maybe` columns hold the given kinds.

    Raises:
        ValueError: a column is missing, occurs twice, or holds values of another kind.
    """
    missing = [shown(column) for column in wanted if column not in table.columns]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise ValueError(
            f"{folder}: the table lacks the columns {', '.join(missing[:_LISTED])}{more}; an older version wrote it: "
            "rerun sae-geometry umap"
        )
    if not table.columns.is_unique:
        raise ValueError(f"{folder}: the table has two columns with the same name; rerun sae-geometry umap")
    for column, kinds in {**wanted, **{c: kinds for c, kinds in maybe.items() if c in table.columns}}.items():
        kind = _kind(table[column])
        if kind not in kinds:
            wanted_kinds = " or ".join(sorted(kinds - {"integers"} or kinds, reverse=True))
            raise ValueError(f"{folder}: column {shown(column)} must hold {wanted_kinds}; got {kind}")


def _kind(column: pd.Series[Any]) -> str:
    """Return a name for the kind of a column's values, such as "integers" or "no values"."""
    from pandas.api import types

    if column.isna().all():
        return "no values"
    if types.is_bool_dtype(column.dtype) or (
        column.dtype == object and types.is_bool_dtype(column.dropna().infer_objects())
    ):
        return "booleans"
    if types.is_integer_dtype(column.dtype):
        return "numbers" if column.isna().any() else "integers"
    if types.is_float_dtype(column.dtype):
        return "numbers"
    texts = types.is_string_dtype(column.dtype) or all(isinstance(value, str) for value in column.dropna())
    return "strings" if texts else "values of another kind"
