"""Read the sizes that bound the memory of a Parquet file from the footer and page headers, without pyarrow.

pyarrow crashes, instead of raising, if the description of a column chunk contradicts its schema. The footer and the
page headers are structs of Thrift's compact protocol, https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import IO, Any, NamedTuple

_MOST_FOOTER, _LONGEST_HEADER, _DEEPEST = 16 << 20, 1 << 16, 16
_TAIL = 8  # bytes at the end of the file: the footer's size and the format's name
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_WHOLE = (_I16, _I32, _I64)
_Struct = dict[tuple[int, int], Any]
"""Values of a struct by field and type. Readers ignore a field of an unexpected type."""

_ROW_GROUPS, _COLUMNS, _COLUMN, _N_ROWS = (4, _LIST), (1, _LIST), (3, _STRUCT), (3, _I64)
_VALUES, _PACKED, _DATA, _DICTIONARY = (5, _I64), (7, _I64), (9, _I64), (11, _I64)
_PAGE_UNPACKED, _PAGE_PACKED = (2, _I32), (3, _I32)
# Element types that the Parquet specification prescribes for each list, by (depth, field). pyarrow assumes them and
# ignores the type in the list's header, so they are checked here.
_ELEMENTS = {
    (0, 2): (_STRUCT,), (0, 4): (_STRUCT,), (0, 5): (_STRUCT,), (0, 7): (_STRUCT,), (1, 1): (_STRUCT,),
    (1, 4): (_STRUCT,), (3, 2): _WHOLE, (3, 3): (_BINARY,), (3, 8): (_STRUCT,), (3, 13): (_STRUCT,),
    (4, 2): _WHOLE, (4, 3): _WHOLE,
}  # fmt: skip


class Chunk(NamedTuple):
    """Column of one row group: the numbers of rows and of values, and the offset and size in bytes of the pages."""

    n_rows: int
    n_values: int
    start: int
    n_bytes: int


def column_chunks(file: IO[bytes]) -> list[Chunk]:
    """Return the column chunks that the footer of a Parquet file lists.

    Raises:
        ValueError: the footer is damaged or too large.
    """
    end = file.seek(0, 2) - _TAIL
    file.seek(max(0, end))
    size = int.from_bytes(file.read(4), "little")
    if not 0 < size <= min(end, _MOST_FOOTER):
        raise ValueError(f"the footer claims to have {size:,} bytes")
    file.seek(end - size)
    footer = _Compact(file.read(size)).struct(0)
    try:
        return [_chunk(group[_N_ROWS], column[_COLUMN]) for group in footer[_ROW_GROUPS] for column in group[_COLUMNS]]
    except KeyError:
        raise ValueError("a part of the footer is missing") from None


def _chunk(n_rows: int, column: _Struct) -> Chunk:
    start = min(column.get(_DICTIONARY) or column[_DATA], column[_DATA])
    chunk = Chunk(n_rows, column[_VALUES], start, column[_PACKED])
    if min(chunk) < 0:
        raise ValueError("a number in the footer is negative")
    return chunk


def page_sizes(file: IO[bytes], at: int) -> tuple[int, int]:
    """Return the unpacked size of the page that starts at offset `at`, and the offset of the next page.

    Raises:
        ValueError: no page starts there.
    """
    file.seek(at)
    header = _Compact(file.read(_LONGEST_HEADER))
    sizes = header.struct(0)
    unpacked, packed = sizes.get(_PAGE_UNPACKED, -1), sizes.get(_PAGE_PACKED, -1)
    if unpacked < 0 or packed < 0:
        raise ValueError("a page has no size")
    return unpacked, at + header.at + packed


class _Compact:
    """Cursor over bytes in Thrift's compact protocol. All methods raise ValueError if the bytes are malformed."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def struct(self, depth: int) -> _Struct:
        """Return the fields of a struct, with None for strings, booleans and doubles."""
        if depth > _DEEPEST:
            raise ValueError("the footer or a page header is nested too deeply")
        found: _Struct = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            if kind in (_LIST, _SET):
                found[field, kind] = self._list(_ELEMENTS.get((depth, field)), depth)
            else:
                found[field, kind] = None if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _list(self, expected: tuple[int, ...] | None, depth: int) -> list[Any]:
        head = self._byte()
        kind = head & 15
        n = head >> 4 if head >> 4 < 15 else self._varint()
        if expected is not None and kind not in expected:
            raise ValueError("a list in the footer or a page header holds values of the wrong type")
        return [self._value(kind, depth) for _ in range(n)]

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _WHOLE:
            return self._whole()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_TRUE, _FALSE, _BYTE):  # A boolean takes a byte only in a list.
            return self._byte()
        if kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self._varint()  # Reading the length also moves the cursor.
            self.at += length
        else:
            raise ValueError("the footer or a page header has a field of unknown type")
        return None

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
        raise ValueError("a number in the footer or a page header is too long")

    def _byte(self) -> int:
        if self.at >= len(self.raw):
            raise ValueError("the footer or a page header is cut off")
        self.at += 1
        return self.raw[self.at - 1]
