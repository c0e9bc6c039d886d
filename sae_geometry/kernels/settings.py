"""Settings that hold for every computation within a context, unless an argument overrides them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

Device = Literal["auto", "cpu", "cuda", "mps"]

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Limits:
    """Limits on requests to a server.

    Attributes:
        connect: maximum seconds to connect.
        silence: maximum seconds without receiving a byte.
        tries: maximum number of attempts.
        pause: seconds before the second attempt, doubled before the third.
        longest_pause: maximum seconds of a pause, even if a server's Retry-After asks for more.
        slowest: minimum bytes per second, averaged over `silence` seconds.
        end: maximum seconds for a request, including all pages of its response.
    """

    connect: float = 10.0
    silence: float = 60.0
    tries: int = 3
    pause: float = 1.0
    longest_pause: float = 20.0
    slowest: float = 4096.0
    end: float = 900.0


@dataclass(frozen=True)
class Settings:
    """Current settings, which `sae_geometry.settings` changes.

    Attributes:
        memory: memory limit of a sweep in bytes, excluding its inputs; None means the device's default.
        device: device of dictionaries from `load`: "auto" is a GPU if there is one; None is the CPU.
        offline: whether to work without the network.
        cache: folder of downloads; None means $SAE_GEOMETRY_CACHE, or else the user's cache folder.
        runner: function that runs sweeps elsewhere (`kernels.types.Runner`); None runs them in this process.
        sweeps: entries of the open ledger by (screen, reason, device); None if no ledger is open.
    """

    memory: int | None = None
    device: Device | None = None
    offline: bool = False
    cache: Path | None = None
    limits: Limits = Limits()
    runner: Callable[..., Any] | None = None
    sweeps: dict[tuple[str, str, str], Any] | None = None


_DEFAULTS = Settings()
_NOW: ContextVar[Settings] = ContextVar("settings")


def current() -> Settings:
    """Return the current settings."""
    return _NOW.get(_DEFAULTS)


@contextmanager
def changed(**values: Any) -> Iterator[Settings]:
    """Change some settings within the context, in the current thread; raise ValueError for an invalid value."""
    if values.get("memory") is not None:
        values["memory"] = as_bytes(values["memory"])
    if values.get("device") not in (None, *get_args(Device)):
        raise ValueError(f"device must be one of {', '.join(get_args(Device))}; got {values['device']!r}")
    token = _NOW.set(replace(current(), **values))
    try:
        yield current()
    finally:
        _NOW.reset(token)


def as_bytes(size: int | str) -> int:
    """Convert a size such as 1000 or "64MiB" to bytes.

    Raises:
        ValueError: the size cannot be parsed, or is not positive.

    Example:
        >>> as_bytes("1.5 GB"), as_bytes("64MiB"), as_bytes(1000)
        (1610612736, 67108864, 1000)
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(?:I?B)?\s*", str(size).upper())
    n = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if n <= 0:
        raise ValueError(f"a memory limit must be a positive size such as 500MB or 2GB; got {size!r}")
    return n


def torch_device() -> str:
    """Return the torch device that the settings select; raise ValueError if the device is not available."""
    device = current().device or "cpu"
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        raise ValueError(f"device='{device}' is not available on this machine; use device='auto' or device='cpu'")
    return device
