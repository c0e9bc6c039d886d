"""Tables on disk, through open files, because pyarrow accepts no file name that is not UTF-8."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sae_geometry.io.escaping import cell
from sae_geometry.io.results_folder import open_inside

if TYPE_CHECKING:
    import pandas as pd

# A table may take this many bytes in memory, or this multiple of its file's size: with run lengths and dictionaries a
# few bytes can represent any number of rows. Our tables take up to twenty times their files.
_ALWAYS, _TIMES = 64 << 20, 50
_A_VALUE = 16  # bytes in memory, including mask or offset
_MOST_COLUMNS, _MOST_CHUNKS, _LONGEST_TEXT = 10_000, 1_000_000, 1 << 16
_PHYSICAL = {"BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE", "BYTE_ARRAY"}
_CODECS = {"SNAPPY", "UNCOMPRESSED"}  # at most 21 bytes out of one; others give thousands, whatever the footer says


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("wb") as file:  # pandas before 3 treats a file as a path
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; text that a spreadsheet would read as a formula is quoted."""
    text = table.select_dtypes(include=["object", "string"]).columns
    table.assign(**{str(c): table[c].map(lambda v: cell(v) if isinstance(v, str) else v) for c in text}).to_csv(
        path, index=False
    )


def write_neuronpedia(table: pd.DataFrame, path: Path) -> None:
    """Write runs, ids and coordinates of a UMAP as a CSV file in Neuronpedia's format."""
    named = table.rename(columns={"run": "RunType", "latent_id": "EmbeddingIndex", "x": "X", "y": "Y"})
    named = named.assign(RunType=named["RunType"].map(cell))
    named[["RunType", "EmbeddingIndex", "X", "Y"]].to_csv(path, index=False)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Return the table in a parquet file of a results folder, after a check of its size.

    Raises:
        ValueError: the file is damaged, is not a table of results, or would take far more memory than its size.
    """
    import pandas as pd

    with open_inside(folder, name) as file:
        try:
            _check_bounds(file)
            file.seek(0)
            return pd.read_parquet(file)
        except Exception as error:  # pyarrow and pandas may raise any exception for a damaged or hostile file
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise ValueError(f"{folder / name} cannot be read as a table of results ({why})") from error


def _check_bounds(file: IO[bytes]) -> None:
    """Refuse a parquet file whose table would be too large for the file, by its footer and its distinct texts."""
    import pyarrow.parquet as pq

    most = _ALWAYS + _TIMES * file.seek(0, 2)
    parquet = pq.ParquetFile(file, thrift_string_size_limit=16 << 20, thrift_container_size_limit=_MOST_CHUNKS)
    about = parquet.metadata
    if about.num_columns > _MOST_COLUMNS or about.num_columns * about.num_row_groups > _MOST_CHUNKS:
        raise ValueError(f"{about.num_columns:,} columns in {about.num_row_groups:,} parts")
    for at in range(about.num_columns):
        column = about.schema.column(at)
        if column.path != column.name or column.max_repetition_level or column.physical_type not in _PHYSICAL:
            raise ValueError(f"a column holds values of a kind that no table of results has: {column.path[:80]!r}")
    parts = [about.row_group(at) for at in range(about.num_row_groups)]
    codecs = {part.column(at).compression for part in parts for at in range(about.num_columns)}
    if codecs - _CODECS:
        raise ValueError(f"it is compressed by {', '.join(sorted(codecs))}; tables of results are by SNAPPY")
    stated = sum(part.num_rows for part in parts)
    if stated != about.num_rows or about.num_rows < 0:
        raise ValueError("the rows of its parts do not add up to those of the whole")
    unpacked = sum(part.total_byte_size for part in parts)
    _refuse_above(most, max(unpacked, _A_VALUE * about.num_rows * about.num_columns), about.num_rows)
    texts = [n for n, kind in zip(parquet.schema_arrow.names, parquet.schema_arrow.types, strict=True) if _text(kind)]
    if texts:
        file.seek(0)
        _refuse_above(most, _bytes_of_texts(pq.ParquetFile(file, read_dictionary=texts), texts), about.num_rows)


def _text(kind: Any) -> bool:
    import pyarrow.types as t

    if t.is_dictionary(kind):
        return _text(kind.value_type)
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind))


def _bytes_of_texts(parquet: Any, columns: list[str]) -> int:
    """Return the bytes that the texts take in memory once each row has its own copy.

    Raises:
        ValueError: a text is far longer than any that we write.
    """
    total = 0
    for column in parquet.read(columns=columns).columns:
        for chunk in column.chunks:
            lengths = np.array([len(value.as_buffer() or b"") for value in chunk.dictionary] or [0])
            if lengths.max() > _LONGEST_TEXT:
                raise ValueError(f"a text of {lengths.max():,} bytes")
            total += int(lengths[chunk.indices.drop_null().to_numpy()].sum())
    return total


def _refuse_above(most: int, needed: int, rows: int) -> None:
    if needed > most:
        raise ValueError(f"{rows:,} rows would take {needed:,} bytes of memory, and its size allows for {most:,}")
