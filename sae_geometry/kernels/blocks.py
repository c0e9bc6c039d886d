"""How large the blocks of C are: from the caches, the threads and a memory ceiling, not from constants."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MIB = 1 << 20
DEFAULT_MEMORY = 256 * MIB
_FALLBACK_CACHE = 16 * MIB  # where the system does not say
_SMALLEST_BLOCK = 64


@dataclass(frozen=True)
class Blocks:
    """Rows and columns of one block of C."""

    rows: int
    cols: int

    @property
    def size(self) -> int:
        """Scores in a block."""
        return self.rows * self.cols


@cache
def last_level_cache() -> int:
    """Bytes of the largest cache that core 0 sees."""
    sizes = []
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = size.read_text().strip()
            sizes.append(int(text.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1], 1))
        except (OSError, ValueError):
            continue
    with suppress(AttributeError, OSError, ValueError):
        sizes += [os.sysconf("SC_LEVEL3_CACHE_SIZE"), os.sysconf("SC_LEVEL2_CACHE_SIZE")]
    return max([s for s in sizes if s > 0], default=_FALLBACK_CACHE)


def listing_bytes(n: int, m: int, k: int, columns: bool, threads: int, width: int) -> int:
    """Bytes of shortlists and results: what a sweep holds whatever its blocks are.

    A shortlist entry takes 12 bytes once its index is int64 (8 while screened), a result 24; the columns are listed
    once a thread and merged.
    """
    sides = n + (m if columns else 0)
    return sides * (12 * width + 24 * k + 16) + (m if columns else 0) * 8 * width * threads


def cpu_blocks(n: int, m: int, threads: int, spare: int) -> Blocks:
    """Blocks for the CPU: one block a thread, half of its share of the last cache, twice as wide as high.

    So a block is still in cache when it is scanned, and high enough that the product runs at full rate. Each thread
    gets at least four stripes of rows, so that none waits long for the last. `spare` bytes bound what all threads'
    blocks take together, two float32 copies each.

    Raises:
        ValueError: `spare` is too small for any block.
    """
    block = min(last_level_cache() // (2 * threads), 8 * MIB, spare // (2 * threads))
    if block < 4 * _SMALLEST_BLOCK**2:
        raise ValueError(
            f"the memory ceiling leaves {max(spare, 0):,} bytes for {threads} threads' blocks; "
            f"raise it by {2 * threads * 4 * _SMALLEST_BLOCK**2 - spare:,} or use fewer threads"
        )
    rows = int((block / 8) ** 0.5) // _SMALLEST_BLOCK * _SMALLEST_BLOCK
    rows = max(_SMALLEST_BLOCK, rows)
    cols = block // (4 * rows)
    return Blocks(min(rows, max(256, -(-n // (4 * threads))), max(n, 1)), min(cols, m))


def device_blocks(n: int, m: int, k: int, spare: int) -> Blocks:
    """Blocks for whole-tensor screens: few and large, since each costs kernel launches; `spare` bytes bound them.

    A score takes 4 bytes, and its block's copies (absolute value, bias, mask, sort) about five times that.
    """
    cols = min(m, 16384)
    rows = max(1, min(n, 8192, spare // (24 * max(cols, 2 * k))))
    return Blocks(rows, cols)
