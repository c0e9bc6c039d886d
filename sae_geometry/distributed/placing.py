"""On which device of a worker, by which screen and on how many threads: one rule for tiles and whole pairs.

What was asked to stay on the CPU stays there. Everything else goes to the worker's GPU, if it has one; where it has
none, work that was on a GPU here is done on the worker's CPU, and the report says so. The answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from sae_geometry.kernels.types import ScreenName

Device = Literal["auto", "cpu", "cuda", "mps"]
NO_GPU = "on a GPU here, on the CPU where a worker has none"
_ALLOCATOR = "DefaultCPUAllocator"  # how torch names who could not give it memory


def wanted(asked: Device, here: str) -> Device:
    """What workers are asked for: by the user, or else by where the operands lie here ("cpu", "cuda").

    Example:
        >>> from sae_geometry.distributed.worker import wanted
        >>> wanted("auto", "cpu"), wanted("auto", "cuda"), wanted("cpu", "cuda"), wanted("mps", "cpu")
        ('auto', 'cuda', 'cpu', 'cpu')
    """
    if asked in ("cpu", "mps"):
        return "cpu"
    return "cuda" if here == "cuda" else asked


def placed(asked: Device) -> tuple[str, str]:
    """The device of this worker for work that asks for `asked`, and what the report must say of it ("": nothing)."""
    if asked != "cpu" and torch.cuda.is_available():
        return "cuda", ""
    return "cpu", NO_GPU if asked == "cuda" else ""


def screen_on(device: str, screen: ScreenName) -> ScreenName:
    """The screen asked for, or "auto" where it does not run on that device.

    Example:
        >>> from sae_geometry.distributed.worker import screen_on
        >>> screen_on("cpu", "int8"), screen_on("cuda", "int8"), screen_on("cpu", "triton"), screen_on("cuda", "fp16")
        ('int8', 'auto', 'auto', 'fp16')
    """
    elsewhere = screen.startswith("triton") if device == "cpu" else screen in ("cpu", "int8")
    return "auto" if elsewhere else screen


def ways(device: str, threads: int) -> Iterator[tuple[str, int]]:
    """Devices and threads to try one after another until one keeps to the memory: a GPU, then fewer CPU threads.

    Example:
        >>> from sae_geometry.distributed.worker import ways
        >>> list(ways("cuda", 6))
        [('cuda', 6), ('cpu', 6), ('cpu', 3), ('cpu', 1)]
    """
    if device != "cpu":
        yield device, threads
    while threads:
        yield "cpu", threads
        threads //= 2


@contextmanager
def want_of_memory_told() -> Iterator[None]:
    """Every way in which torch says that memory is short is a `MemoryError` outside."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or _ALLOCATOR in str(error):
            raise MemoryError(str(error)) from None
        raise
