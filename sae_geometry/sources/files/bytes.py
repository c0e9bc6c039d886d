"""Read slices of a file, and raise SourceError if it has changed since it was opened.

Files are not memory-mapped: SIGBUS would end this process if another process truncated the file, and the system can
refuse a mapping as large as the file if memory is scarce.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np

from sae_geometry.sources.errors import SourceError

_CHUNK = 4 << 20


class FileBytes:
    """A byte range of a file; reads outside the range, or after the file has changed, raise SourceError."""

    def __init__(self, path: Path, start: int = 0, end: int | None = None) -> None:
        self.path = path
        self._state = _state(os.stat(path))
        end = self._state[0] if end is None else end
        if not 0 <= start <= end <= self._state[0]:
            raise SourceError(f"{path.name} is truncated: it has {self._state[0]:,} of {end:,} bytes")
        self.start, self.size = start, end - start

    @contextmanager
    def opened(self) -> Iterator[FileIO]:
        """Open the file for unbuffered reading; raise SourceError if it has changed."""
        try:
            with FileIO(self.path) as file:
                self._check(file)
                yield file
                self._check(file)
        except OSError as error:
            raise SourceError(f"{self.path.name} cannot be read: {error.strerror or error}") from error

    def read(self, start: int, n_bytes: int) -> np.ndarray:
        """Read `n_bytes` bytes from byte `start` as uint8."""
        return self.pieces(start, n_bytes, 1, 0)

    def pieces(self, start: int, n_bytes: int, count: int, step: int) -> np.ndarray:
        """Read and concatenate `count` pieces of `n_bytes` bytes as uint8; they start at intervals of `step` bytes."""
        self._inside(start, (count - 1) * step + n_bytes)
        out = np.empty(count * n_bytes, dtype=np.uint8)
        with self.opened() as file:
            for i in range(count):
                file.seek(self.start + start + i * step)
                self._fill(file, out[i * n_bytes : (i + 1) * n_bytes].data)
        return out

    def checked(self, start: int, n_bytes: int, first: int, wanted: int) -> tuple[np.ndarray, int]:
        """Read `n_bytes` bytes from `start`; return `wanted` of them from offset `first` on, and the CRC-32 of all."""
        self._inside(start, n_bytes)
        out, crc = np.empty(wanted, dtype=np.uint8), 0
        chunk = memoryview(bytearray(min(_CHUNK, n_bytes)))
        with self.opened() as file:
            file.seek(self.start + start)
            for at in range(0, n_bytes, _CHUNK):
                part = chunk[: min(_CHUNK, n_bytes - at)]
                self._fill(file, part)
                crc = zlib.crc32(part, crc)
                low, high = max(at, first), min(at + len(part), first + wanted)
                if low < high:
                    out[low - first : high - first] = part[low - at : high - at]
        return out, crc

    def _inside(self, start: int, n_bytes: int) -> None:
        if start < 0 or n_bytes < 0 or start + n_bytes > self.size:
            raise SourceError(f"{self.path.name} is truncated or damaged: it ends before byte {start + n_bytes:,}")

    def _fill(self, file: FileIO, view: memoryview) -> None:
        done = 0
        while done < len(view):
            n = file.readinto(view[done:])
            if not n:
                raise self._changed()
            done += n

    def _check(self, file: FileIO) -> None:
        if _state(os.fstat(file.fileno())) != self._state:
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(f"{self.path.name} was changed while it was being read; load it once it is complete")


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev
