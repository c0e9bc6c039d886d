"""Read what bounds the memory of a Parquet file from its footer and page headers, without pyarrow.

pyarrow ends the process, rather than raise, where the description of a column chunk contradicts its schema. Both are
structs of Thrift's compact protocol, https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import IO, Any, NamedTuple

_MOST_FOOTER, _LONGEST_HEADER, _DEEPEST = 16 << 20, 1 << 16, 16
_TAIL = 8  # bytes: the footer's size and the format's name
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_WHOLE = (_I16, _I32, _I64)
_Struct = dict[tuple[int, int], Any]
"""The values of a struct by field and type; a reader ignores a field of another type than it expects."""

_ROW_GROUPS, _COLUMNS, _COLUMN, _N_ROWS = (4, _LIST), (1, _LIST), (3, _STRUCT), (3, _I64)
_VALUES, _PACKED, _DATA, _DICTIONARY = (5, _I64), (7, _I64), (9, _I64), (11, _I64)
_PAGE_UNPACKED, _PAGE_PACKED = (2, _I32), (3, _I32)
# pyarrow reads a list in a footer as the type that the format gives it, not the list itself. By depth and field.
_ELEMENTS = {
    (0, 2): (_STRUCT,), (0, 4): (_STRUCT,), (0, 5): (_STRUCT,), (0, 7): (_STRUCT,), (1, 1): (_STRUCT,),
    (1, 4): (_STRUCT,), (3, 2): _WHOLE, (3, 3): (_BINARY,), (3, 8): (_STRUCT,), (3, 13): (_STRUCT,),
    (4, 2): _WHOLE, (4, 3): _WHOLE,
}  # fmt: skip


class Chunk(NamedTuple):
    """A column of a row group: its rows, its values, and the place of its pages."""

    n_rows: int
    n_values: int
    start: int
    n_bytes: int


def column_chunks(file: IO[bytes]) -> list[Chunk]:
    """Return the column chunks that the footer of a Parquet file lists.

    Raises:
        ValueError: the footer is damaged, or far larger than that of any table.
    """
    end = file.seek(0, 2) - _TAIL
    file.seek(max(0, end))
    size = int.from_bytes(file.read(4), "little")
    if not 0 < size <= min(end, _MOST_FOOTER):
        raise ValueError(f"its footer has {size:,} bytes")
    file.seek(end - size)
    footer = _Compact(file.read(size)).struct(0)
    try:
        return [_chunk(group[_N_ROWS], column[_COLUMN]) for group in footer[_ROW_GROUPS] for column in group[_COLUMNS]]
    except KeyError:
        raise ValueError("a part of its footer is missing") from None


def _chunk(n_rows: int, column: _Struct) -> Chunk:
    start = min(column.get(_DICTIONARY) or column[_DATA], column[_DATA])
    chunk = Chunk(n_rows, column[_VALUES], start, column[_PACKED])
    if min(chunk) < 0:
        raise ValueError("a number in its footer is negative")
    return chunk


def page_sizes(file: IO[bytes], at: int) -> tuple[int, int]:
    """Return the unpacked bytes of the page that starts here, and where the next one starts.

    Raises:
        ValueError: no page is here.
    """
    file.seek(at)
    header = _Compact(file.read(_LONGEST_HEADER))
    sizes = header.struct(0)
    unpacked, packed = sizes.get(_PAGE_UNPACKED, -1), sizes.get(_PAGE_PACKED, -1)
    if unpacked < 0 or packed < 0:
        raise ValueError("a page has no size")
    return unpacked, at + header.at + packed


class _Compact:
    """A cursor over bytes of the compact protocol. All methods raise ValueError for bytes that are not."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def struct(self, depth: int) -> _Struct:
        """Return the fields of a struct; texts are passed over."""
        if depth > _DEEPEST:
            raise ValueError("a description in it is nested too deeply")
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
            raise ValueError("a list in it holds values of another kind")
        return [self._value(kind, depth) for _ in range(n)]

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _WHOLE:
            return self._whole()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_TRUE, _FALSE, _BYTE):  # a truth value takes a byte in lists only
            return self._byte()
        if kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self._varint()  # moves on, so it is read first
            self.at += length
        else:
            raise ValueError("it describes values of an unknown kind")
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
        raise ValueError("a number in it is too long")

    def _byte(self) -> int:
        if self.at >= len(self.raw):
            raise ValueError("a description in it does not end")
        self.at += 1
        return self.raw[self.at - 1]
