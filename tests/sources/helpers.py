"""Helpers for several tests of the sources."""

from __future__ import annotations

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
E2E = CHECKPOINTS / "e2e_sae_single"
KEY = "0123456789abcdef0123456789abcdef01234567"


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder that a reader could take for a checkpoint or a record."""
    if not folder.exists():
        return {}
    hidden = (".locks", ".partial", ".sae-geometry-cache")
    files = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in hidden]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
