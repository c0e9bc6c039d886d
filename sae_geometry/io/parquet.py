"""Read and write tables through open files, because pyarrow rejects file names that are not UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae_geometry.io.escaping import cell
from sae_geometry.io.parquet_bounds import check_parquet
from sae_geometry.io.results_folder import open_inside

if TYPE_CHECKING:
    import pandas as pd

# In memory, our tables take up to twenty times the size of their files. A consensus table has a column per run.
_TIMES, _MOST_COLUMNS = 50, 10_000


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("wb") as file:  # pandas before version 3 treats an open file as a path.
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, and quote text that a spreadsheet would read as a formula."""
    text = table.select_dtypes(include=["object", "string"]).columns
    table.assign(**{str(c): table[c].map(lambda v: cell(v) if isinstance(v, str) else v) for c in text}).to_csv(
        path, index=False
    )


def write_neuronpedia(table: pd.DataFrame, path: Path) -> None:
    """Write the runs, ids and coordinates of a UMAP as CSV in Neuronpedia's format."""
    named = table.rename(columns={"run": "RunType", "latent_id": "EmbeddingIndex", "x": "X", "y": "Y"})
    named = named.assign(RunType=named["RunType"].map(cell))
    named[["RunType", "EmbeddingIndex", "X", "Y"]].to_csv(path, index=False)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Return the table in a Parquet file of a results folder, after checking its size.

    Raises:
        ValueError: the file is damaged, is not a table of results, or would take far more memory than its size.
    """
    import pandas as pd

    with open_inside(folder, name) as file:
        try:
            check_parquet(file, _TIMES, _MOST_COLUMNS)
            return pd.read_parquet(file)
        except Exception as error:  # pyarrow and pandas may raise any exception for a damaged or hostile file.
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise ValueError(f"{folder / name} cannot be read as a table of results ({why})") from error
