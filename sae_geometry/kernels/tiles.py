"""Tiles of C = A·Bᵀ that can be swept anywhere and in any order, and split further if they are too large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, sqrt


@dataclass(frozen=True)
class Tile:
    """Tile of C: rows `rows[0]:rows[1]` of A against rows `cols[0]:cols[1]` of B.

    With `within`, both spans are the same rows of the same dictionary, and the tile holds the pairs i < j.
    """

    rows: tuple[int, int]
    cols: tuple[int, int]
    within: bool = False

    @property
    def pairs(self) -> float:
        """Return the number of inner products in the tile."""
        n, m = self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]
        return n * n / 2 if self.within else float(n * m)


WORTH = 16_384  # Minimum rows per tile. Preparing B again for a new tile costs as much as about 2,700 rows.
TILES_A_WORKER = 4
LEAST = 256  # minimum rows per tile
_MOST = 32_768  # maximum rows per tile, which limits a worker's memory and the work lost with it


def pieces_for(n: int, workers: int, worth: int = WORTH) -> int:
    """Return the number of tiles for n rows: one per `worth` rows, at least one and at most four per worker.

    With `worth=0`, the number is four per worker. It is higher if a tile would otherwise exceed 32,768 rows.
    """
    most = TILES_A_WORKER * workers
    return max(min(n // worth, most) if worth else most, workers, -(-n // _MOST))


def sides_for(pieces: int) -> int:
    """Return the smallest number of spans per side that gives `pieces` or more tiles within one dictionary."""
    return ceil((sqrt(8 * pieces + 1) - 1) / 2)


def cut(n: int, m: int | None, pieces: int, *, least: int = 1) -> list[Tile]:
    """Cut C into about `pieces` tiles, with every pair (i, j) in exactly one of them.

    Between two dictionaries (m not None), only the rows are cut: each tile spans all of B, so that the lists of its
    rows are final. Within one dictionary (m None), both sides are cut, and every pair i < j is in one tile. A tile has
    at least `least` rows, if there are that many.
    """
    if m is not None:
        return [Tile(rows, (0, m)) for rows in _spans(n, min(pieces, max(1, n // least)))]
    spans = _spans(n, min(sides_for(pieces), max(1, n // least)))
    return [Tile(r, c, within=r == c) for at, r in enumerate(spans) for c in spans[at:]]


def halves(tile: Tile, least: int = 1) -> list[Tile]:
    """Halve a tile's longer side, or both sides within one dictionary; return [] if a part would be below `least`."""
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
