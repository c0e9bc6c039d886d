"""Tables on disk, by an open file and not by its name: pyarrow takes no name that is not UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet."""
    with path.open("wb") as file:
        table.to_parquet(file, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """The table that a parquet file holds.

    Raises:
        OSError, ValueError: it is none.
    """
    import pandas as pd

    with path.open("rb") as file:
        return pd.read_parquet(file)
