"""Kinds of values in the columns of a table from elsewhere, checked before the table is used.

Unknown values are missing: a column of whole numbers has them as numbers, where another program wrote it, and one of
nothing else none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_geometry.io.escaping import shown

if TYPE_CHECKING:
    import pandas as pd

TEXTS, MAYBE_TEXTS = frozenset({"text"}), frozenset({"text", "nothing"})
IDS, NUMBERS = frozenset({"whole"}), frozenset({"whole", "number", "nothing"})
FLOATS, TRUTHS = frozenset({"number", "nothing"}), frozenset({"truth", "nothing"})
_LISTED = 3


def check_columns(
    table: pd.DataFrame, wanted: Mapping[str, frozenset[str]], maybe: Mapping[str, frozenset[str]], folder: Path
) -> None:
    """Check that a table has the columns of `wanted`, and values of the given kinds in these and those of `maybe`.

    Raises:
        ValueError: a column is missing, is there twice, or holds values of another kind.
    """
    missing = [shown(column) for column in wanted if column not in table.columns]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise ValueError(
            f"{folder}: the table lacks the columns {', '.join(missing[:_LISTED])}{more}; an older version wrote it: "
            "make the results again with sae-geometry umap"
        )
    if not table.columns.is_unique:
        raise ValueError(f"{folder}: the table has two columns of one name; make the results again")
    for column, kinds in {**wanted, **{c: kinds for c, kinds in maybe.items() if c in table.columns}}.items():
        kind = _kind(table[column])
        if kind not in kinds:
            raise ValueError(f"{folder}: the column {shown(column)} holds values of the wrong kind ({kind})")


def _kind(column: pd.Series[Any]) -> str:
    """Return the kind of a column's values, of the sets above; "something else" for any other."""
    from pandas.api import types

    if column.isna().all():
        return "nothing"
    if types.is_bool_dtype(column.dtype) or (
        column.dtype == object and types.is_bool_dtype(column.dropna().infer_objects())
    ):
        return "truth"
    if types.is_integer_dtype(column.dtype):
        return "number" if column.isna().any() else "whole"
    if types.is_float_dtype(column.dtype):
        return "number"
    texts = types.is_string_dtype(column.dtype) or all(isinstance(value, str) for value in column.dropna())
    return "text" if texts else "something else"
