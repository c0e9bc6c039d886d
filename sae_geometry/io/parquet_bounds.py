"""Refuse Parquet files, by any writer, whose tables would be far larger than the file.

A few kilobytes can stand for gigabytes in three ways: packed pages, runs of one value, and dictionaries of long texts.
A reader unpacks each page to the size in its own header, whatever the footer says, so those headers are read: structs
of Thrift's compact protocol whose first fields are type, unpacked size and packed size.
"""

from __future__ import annotations

from typing import IO, Any

# Reading a table may take this many bytes of memory, and this multiple of its file's size. Texts are there up to two
# and a half times on the way to a data frame.
_ALWAYS, _TIMES, _COPIES = 64 << 20, 10, 2.5
_A_VALUE = 16  # bytes in memory, including mask or offset
_MOST_COLUMNS, _MOST_CHUNKS = 1000, 100_000
_MOST_PAGES = 100_000  # of one column
_LONGEST_HEADER = 1 << 16
_UNPACKED, _PACKED = 2, 3  # fields of a page's header
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12


def check_parquet(file: IO[bytes]) -> None:
    """Refuse a table that would be too large for its file, and go back to the file's start.

    Raises:
        ValueError: the table would be too large, or the file is damaged.
    """
    import pyarrow.parquet as pq

    most = _ALWAYS + _TIMES * file.seek(0, 2)
    about = pq.ParquetFile(file, thrift_string_size_limit=16 << 20, thrift_container_size_limit=1_000_000).metadata
    if about.num_columns > _MOST_COLUMNS or about.num_columns * about.num_row_groups > _MOST_CHUNKS:
        raise ValueError(f"it has {about.num_columns:,} columns in {about.num_row_groups:,} parts")
    parts = [about.row_group(at) for at in range(about.num_row_groups)]
    chunks = [part.column(at) for part in parts for at in range(about.num_columns)]
    values = sum(max(chunk.num_values, 0) for chunk in chunks)
    _refuse_above(most, _A_VALUE * max(values, about.num_rows * about.num_columns))
    unpacked = 0
    for chunk in chunks:
        start = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
        unpacked += _unpacked_bytes(file, start, chunk.total_compressed_size, most)
        _refuse_above(most, unpacked)
    texts = [c.path for c in map(about.schema.column, range(about.num_columns)) if c.physical_type == "BYTE_ARRAY"]
    if texts:
        file.seek(0)
        columns = pq.ParquetFile(file, read_dictionary=texts).read(columns=texts).columns
        _refuse_above(most, int(_COPIES * sum(_bytes_of_texts(chunk) for column in columns for chunk in column.chunks)))
    file.seek(0)


def _bytes_of_texts(array: Any) -> int:
    """Return the bytes that texts take once each value has its own copy, including those in lists and structs."""
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_dictionary(kind):
        lengths = pc.binary_length(array.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
        return int(lengths[array.indices.drop_null().to_numpy()].sum(dtype="int64")) if len(lengths) else 0
    if t.is_struct(kind):
        return sum(_bytes_of_texts(field) for field in array.flatten())
    if t.is_map(kind):
        return _bytes_of_texts(array.keys) + _bytes_of_texts(array.items)
    return _bytes_of_texts(array.flatten()) if t.is_nested(kind) else int(array.nbytes)


def _refuse_above(most: int, needed: int) -> None:
    if needed > most:
        raise ValueError(f"its table would take {needed:,} bytes of memory or more, and its size allows for {most:,}")


def _unpacked_bytes(file: IO[bytes], start: int, n_bytes: int, most: int) -> int:
    """Return the bytes that the pages of a column chunk unpack to, or the first sum above `most`.

    Raises:
        ValueError: no pages are there, or far more than any table has.
    """
    at, total = start, 0
    for _ in range(_MOST_PAGES):
        if at >= start + n_bytes or total > most:
            return total
        file.seek(at)
        header = _Header(file.read(_LONGEST_HEADER))
        sizes = header.struct(0)
        unpacked, packed = sizes.get(_UNPACKED, -1), sizes.get(_PACKED, -1)
        if unpacked < 0 or packed < 0:
            raise ValueError("a page has no size")
        total += unpacked
        at += header.at + packed
    raise ValueError(f"a column has more than {_MOST_PAGES:,} pages")


class _Header:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def struct(self, depth: int) -> dict[int, int]:
        """Return the whole numbers of a struct by field; its other fields are passed over."""
        numbers: dict[int, int] = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            if kind in (_I16, _I32, _I64):
                numbers[field] = self._whole()
            elif kind in (_BYTE, _DOUBLE):
                self.at += 8 if kind == _DOUBLE else 1
            elif kind == _BINARY:
                length = self._varint()  # moves on, so it is read first
                self.at += length
            elif kind == _STRUCT and depth < 4:
                self.struct(depth + 1)
            elif kind not in (_TRUE, _FALSE):
                raise ValueError("a page has a header of another kind")
        return numbers

    def _whole(self) -> int:
        n = self._varint()
        return (n >> 1) ^ -(n & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a page has a number that is too long")

    def _byte(self) -> int:
        if self.at >= len(self.raw):
            raise ValueError("the header of a page does not end")
        self.at += 1
        return self.raw[self.at - 1]
