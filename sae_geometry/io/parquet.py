"""Tables on disk, by an open file and not by its name: pyarrow takes no name that is not UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("wb") as file:  # pandas before 3 makes a path of a file
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file)


def read_table(path: Path) -> pd.DataFrame:
    """The table that a parquet file holds.

    Raises:
        OSError, ValueError: it is none.
    """
    import pandas as pd

    with path.open("rb") as file:
        return pd.read_parquet(file)
