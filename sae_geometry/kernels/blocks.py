"""Sizes of the blocks of C, chosen from the cache size, the number of threads and the memory limit."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sae_geometry.kernels.settings import current

MIB = 1 << 20
DEFAULT_MEMORY = 256 * MIB
DEVICE_MEMORY = 2048 * MIB  # default limit on GPUs, where only large blocks are fast
_FALLBACK_CACHE = 16 * MIB  # assumed cache size if the system reports none
_SMALLEST_BLOCK = 64
TIGHT = 128 * MIB  # Below this limit, products write into preallocated buffers, which is slower.


class CeilingError(ValueError):
    """Error raised when a sweep does not fit the memory limit; fewer threads or smaller pieces may fit."""


def memory_limit(given: int | None, device: str) -> int:
    """Return the memory limit of a sweep in bytes: `given`, else the settings' limit, else the device's default."""
    limit = current().memory if given is None else given
    if limit is None:
        return DEFAULT_MEMORY if device == "cpu" else DEVICE_MEMORY
    return limit


@dataclass(frozen=True)
class Blocks:
    """Number of rows and columns of one block of C."""

    rows: int
    cols: int

    @property
    def size(self) -> int:
        """Return the number of scores in a block."""
        return self.rows * self.cols


@cache
def last_level_cache() -> int:
    """Return the size in bytes of the largest cache of core 0."""
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
    """Return the size of shortlists and results in bytes, which does not depend on the block size.

    A shortlist entry takes 8 bytes during the screen and 12 once its index is int64; a result takes 24. Every thread
    has column lists, which are merged at the end.
    """
    sides = n + (m if columns else 0)
    return sides * (12 * width + 24 * k + 16) + (m if columns else 0) * 8 * width * threads


def too_little(ceiling: int, needed: int) -> CeilingError:
    """Return the error for a memory limit that is too low; its message names a sufficient limit."""
    size = f"{-(-needed // MIB):,}MB".replace(",", "")
    return CeilingError(
        f"a sweep of this size needs {needed / MIB:,.0f} MiB in addition to its inputs, but the memory limit is "
        f"{ceiling / MIB:,.1f} MiB; raise it with settings(memory='{size}') (--memory {size}) or list fewer partners"
    )


def block_copies(memory: int) -> int:
    """Return how many blocks of memory each CPU thread takes: 2 if products write into preallocated buffers, else 10.

    Products that allocate their results fragment the heap; up to nine blocks per thread were measured.
    """
    return 2 if memory < TIGHT else 10


def cpu_blocks(n: int, m: int, threads: int, spare: int, copies: int = 2, *, held: int = 0) -> Blocks:
    """Return the block size on the CPU: half of a thread's share of the last-level cache, twice as wide as high.

    Such a block is still in cache when it is scanned, and high enough for the product to run at full rate. Each thread
    gets at least four row blocks, so that no thread waits long for the last one. `copies` blocks per thread must fit
    `spare` bytes, or CeilingError is raised; its message adds `held`, the bytes of everything else.
    """
    block = min(last_level_cache() // (2 * threads), 8 * MIB, spare // (copies * threads))
    if block < 4 * _SMALLEST_BLOCK**2:
        smallest = threads * 4 * _SMALLEST_BLOCK**2
        raise too_little(spare + held, held + smallest * block_copies(held + 2 * smallest))
    rows = int((block / 8) ** 0.5) // _SMALLEST_BLOCK * _SMALLEST_BLOCK
    rows = max(_SMALLEST_BLOCK, rows)
    cols = block // (4 * rows)
    return Blocks(min(rows, max(256, -(-n // (4 * threads))), max(n, 1)), min(cols, m))


def device_blocks(n: int, m: int, k: int, spare: int, *, held: int = 0) -> Blocks:
    """Return large blocks for whole-tensor screens, within `spare` bytes, since every block costs kernel launches.

    A score takes 4 bytes, and its copies (absolute value, bias, mask, sort) take about 20.
    """
    least = 24 * min(n, _SMALLEST_BLOCK) * max(min(m, 1024), 2 * k)
    if spare < least:
        raise too_little(spare + held, held + least)
    cols = min(m, 16384)
    while cols > 1024 and spare // (24 * cols) < min(n, 1024):
        cols //= 2
    rows = max(1, min(n, 8192, spare // (24 * max(cols, 2 * k))))
    return Blocks(rows, cols)
