"""Refuse Parquet files whose tables would take far more memory than the file has bytes.

A few kilobytes can expand to gigabytes through compressed pages, runs of one value, or dictionaries of long strings.
Readers trust the size in the header of each page, whatever the footer says, so this module reads those headers.
"""

from __future__ import annotations

from typing import IO, Any

from sae_geometry.io.parquet_footer import Chunk, column_chunks, page_sizes

# A table may take a fixed number of bytes in memory plus a multiple of its file's size. While a data frame is built,
# memory holds up to two and a half copies of its strings.
_ALWAYS, _TIMES, _COPIES = 64 << 20, 10, 2.5
_A_VALUE = 16  # bytes of a value in memory, including its mask or offset
_MOST_COLUMNS, _MOST_CHUNKS = 1000, 100_000
_MOST_PAGES = 100_000  # maximum number of pages per column chunk
_LONGEST_TEXT = 1 << 20  # maximum length of a string, in bytes


def check_parquet(file: IO[bytes], times: int = _TIMES, most_columns: int = _MOST_COLUMNS) -> None:
    """Refuse a table that would take more than 64 MiB plus `times` the file's size, and rewind the file.

    Raises:
        ValueError: the table would be too large, or the file is damaged.
    """
    import pyarrow.parquet as pq

    most = _ALWAYS + times * file.seek(0, 2)
    about = pq.ParquetFile(file, thrift_string_size_limit=16 << 20, thrift_container_size_limit=1_000_000).metadata
    if about.num_columns > most_columns or about.num_columns * about.num_row_groups > _MOST_CHUNKS:
        raise ValueError(f"too many columns ({about.num_columns:,} in {about.num_row_groups:,} row groups)")
    chunks = column_chunks(file)
    _refuse_above(most, _A_VALUE * sum(max(chunk.n_rows, chunk.n_values) for chunk in chunks))
    _refuse_above(most, _A_VALUE * about.num_rows * about.num_columns)
    unpacked = 0
    for chunk in chunks:
        unpacked += _unpacked_bytes(file, chunk, most) if chunk.n_values else 0  # Readers skip chunks without values.
        _refuse_above(most, unpacked)
    texts = [c.path for c in map(about.schema.column, range(about.num_columns)) if c.physical_type == "BYTE_ARRAY"]
    if texts:
        file.seek(0)
        columns = pq.ParquetFile(file, read_dictionary=texts).read(columns=texts).columns
        _refuse_above(most, int(_COPIES * sum(_bytes_of_texts(chunk) for column in columns for chunk in column.chunks)))
    file.seek(0)


def _bytes_of_texts(array: Any) -> int:
    """Return the bytes of all strings, including nested strings, with repeated values counted each time."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
        if (longest := lengths.max(initial=0)) > _LONGEST_TEXT:
            raise ValueError(f"the table holds a string of {longest:,} bytes")
        return int(lengths[array.indices.drop_null().to_numpy()].sum(dtype="int64")) if len(lengths) else 0
    if t.is_struct(kind):
        return sum(_bytes_of_texts(field) for field in array.flatten())
    if t.is_map(kind):
        return _bytes_of_texts(array.keys) + _bytes_of_texts(array.items)
    return _bytes_of_texts(array.flatten()) if t.is_nested(kind) else int(array.nbytes)


def _refuse_above(most: int, needed: int) -> None:
    if needed > most:
        raise ValueError(f"the table takes at least {needed:,} bytes of memory; the file's limit is {most:,}")


def _unpacked_bytes(file: IO[bytes], chunk: Chunk, most: int) -> int:
    """Return the unpacked bytes of a column chunk's pages; stop counting once they exceed `most`."""
    at, total = chunk.start, 0
    for _ in range(_MOST_PAGES):
        if at >= chunk.start + chunk.n_bytes or total > most:
            return total
        unpacked, at = page_sizes(file, at)
        total += unpacked
    raise ValueError(f"a column has more than {_MOST_PAGES:,} pages")
