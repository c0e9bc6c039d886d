"""Write files completely or not at all, because a run may be stopped at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file next to `path`, then rename it onto `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text completely or not at all."""
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_torch(path: Path, value: Any) -> None:
    """Save a value for `torch.load`, completely or not at all."""
    write_whole(path, lambda aside: torch.save(value, aside))
