"""C = A·Bᵀ cut into tiles that can be swept anywhere, in any order, and cut again where one is too large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Tile:
    """Rows `rows[0]:rows[1]` of A against rows `cols[0]:cols[1]` of B.

    `within` means that the two are the same rows of the same dictionary: the pairs i < j among them.
    """

    rows: tuple[int, int]
    cols: tuple[int, int]
    within: bool = False

    @property
    def pairs(self) -> float:
        """Products to be made."""
        n, m = self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]
        return n * n / 2 if self.within else float(n * m)


WORTH = 16_384  # rows for which a tile more pays: each prepares all of B anew, measured to cost what 2,700 rows do
TILES_A_WORKER = 4
LEAST = 256  # rows of a tile
_MOST = 32_768  # rows of a tile: what is lost with a worker, and what a worker must hold lists of


def pieces_for(n: int, workers: int, worth: int = WORTH) -> int:
    """In how many tiles n rows are best swept by so many workers: as many as pay, at least one each, none too large.

    Args:
        n: rows.
        workers: how many.
        worth: rows from which a tile more pays; 0 always cuts into four a worker.

    Example:
        >>> pieces_for(8192, 2), pieces_for(131072, 2), pieces_for(131072, 8)
        (2, 8, 8)
    """
    most = TILES_A_WORKER * workers
    return max(min(n // worth, most) if worth else most, workers, -(-n // _MOST))


def cut(n: int, m: int | None, pieces: int, *, least: int = 1) -> list[Tile]:
    """The whole of C in about so many tiles, every pair (i, j) in exactly one of them.

    Between two dictionaries (m not None) only the rows are cut: each tile meets all of B, so that its rows' lists are
    final. Within one (m None) both sides are, and of every two blocks one tile is made: every pair i < j once.

    Args:
        n: rows of A.
        m: rows of B; None for within A.
        pieces: how many tiles are wanted.
        least: no fewer rows than this to a tile, unless there are not so many.

    Example:
        >>> cut(10, 7, 2)
        [Tile(rows=(0, 5), cols=(0, 7), within=False), Tile(rows=(5, 10), cols=(0, 7), within=False)]
    """
    if m is not None:
        return [Tile(rows, (0, m)) for rows in _spans(n, min(pieces, max(1, n // least)))]
    sides = 1
    while sides * (sides + 1) // 2 < pieces:
        sides += 1
    spans = _spans(n, min(sides, max(1, n // least)))
    return [Tile(r, c, within=r == c) for at, r in enumerate(spans) for c in spans[at:]]


def halves(tile: Tile, least: int = 1) -> list[Tile]:
    """The same pairs in two tiles (three within), cut across the longer side; none where that leaves under `least`."""
    (i, j), (p, q) = tile.rows, tile.cols
    if max(j - i, q - p) < 2 * least:
        return []
    if tile.within:
        middle = (i + j) // 2
        first, second = (i, middle), (middle, j)
        return [Tile(first, first, within=True), Tile(second, second, within=True), Tile(first, second)]
    if j - i >= q - p:
        middle = (i + j) // 2
        return [Tile((i, middle), tile.cols), Tile((middle, j), tile.cols)]
    middle = (p + q) // 2
    return [Tile(tile.rows, (p, middle)), Tile(tile.rows, (middle, q))]


def _spans(n: int, parts: int) -> list[tuple[int, int]]:
    edges = [n * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))
