"""Cache the residual stream at the dictionaries' block and at later blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analyses.demo.train.files import write_text

BATCH = 16  # sequences
# Dictionaries replace activations from this position on. Earlier positions have norms up to seventy times as large.
FIRST = 2
# Activations are clipped to stay below the largest float16; only positions before FIRST come near it.
LARGEST = 60_000


class Cache(NamedTuple):
    """Cached activations as memory-mapped float16 arrays.

    Attributes:
        here: [n, length, d], before the dictionaries' block.
        later: [n, length, k, d], before each later block, followed by the normed output.
    """

    here: np.ndarray
    later: np.ndarray

    def rows(self, which: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        """Return `here` and `later` of some sequences as float32 tensors."""
        return tuple(torch.from_numpy(a[which].astype(np.float32)) for a in self)  # type: ignore[return-value]


def cache(
    tokens: np.ndarray, residuals: Callable[[Tensor], list[Tensor]], folder: Path, say: Callable[[str], None]
) -> None:
    """Fill `folder` with the residual streams of `tokens` [n, length], resuming where an earlier call stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    progress = folder / "done.txt"
    done = int(progress.read_text()) if progress.exists() else 0
    arrays: list[np.ndarray] = []
    for at in range(done, len(tokens), BATCH):
        with torch.no_grad():
            streams = residuals(torch.from_numpy(tokens[at : at + BATCH].astype(np.int64)))
        if not arrays:
            arrays = _arrays(folder, (*tokens.shape, len(streams) - 1, streams[0].shape[-1]), new=done == 0)
        halves = [s.clamp(-LARGEST, LARGEST).half().numpy() for s in streams]
        arrays[0][at : at + BATCH] = halves[0]
        arrays[1][at : at + BATCH] = np.stack(halves[1:], axis=2)
        if (at // BATCH) % 20 == 19 or at + BATCH >= len(tokens):
            for array in arrays:
                array.flush()  # type: ignore[attr-defined]
            write_text(progress, str(min(at + BATCH, len(tokens))))
            say(f"activations of {min(at + BATCH, len(tokens))} of {len(tokens)} sequences")


def read(folder: Path) -> Cache:
    """Open the arrays that `cache` wrote."""
    return Cache(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Cache._fields))


def _arrays(folder: Path, shape: tuple[int, ...], *, new: bool) -> list[np.ndarray]:
    n, length, k, d = shape
    shapes = {"here": (n, length, d), "later": (n, length, k, d)}
    paths = {name: folder / f"{name}.npy" for name in shapes}
    if new:
        return [
            np.lib.format.open_memmap(paths[name], mode="w+", dtype=np.float16, shape=shape)
            for name, shape in shapes.items()
        ]
    return [np.lib.format.open_memmap(path, mode="r+") for path in paths.values()]
