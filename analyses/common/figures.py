"""Write figures as PNG and PDF, with a JSON sidecar that records the command, commit and weights."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

import sae_geometry as sg

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("png", "pdf")
# A larger PNG (bytes) is reduced to 256 colors; the difference is not visible.
LARGE = 300_000


def write_figure(
    figure: Figure,
    stem: Path,
    runs: Sequence[Mapping[str, Any]],
    *,
    command: str,
    seed: int = 0,
    more: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a figure as PNG and PDF with its sidecar, all or none, and return the paths.

    Args:
        figure: the figure.
        stem: path without suffix.
        runs: the dictionaries it was made from, as `source_of` describes them.
        command: command that makes it again.
        seed: random seed.
        more: further entries of the sidecar.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=stem.parent, prefix=".figure-") as aside:
        made = sg.plots.save_figure(figure, Path(aside) / stem.name, {"runs": list(runs), "seed": seed}, FORMATS)
        for path in made:
            if path.suffix == ".png" and path.stat().st_size > LARGE:
                with_a_palette(path)
        made.append(write_sidecar(Path(aside) / stem.name, runs, command=command, seed=seed, more=more))
        for path in made:
            os.replace(path, stem.parent / path.name)
    return [stem.parent / path.name for path in made]


def write_sidecar(
    stem: Path,
    runs: Sequence[Mapping[str, Any]],
    *,
    command: str,
    seed: int = 0,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write the sidecar, which records how a figure was made; see `write_figure` for the arguments."""
    sidecar = {"command": command, "commit": commit(), "version": sg.__version__, "seed": seed, "runs": list(runs)}
    path = stem.with_name(f"{stem.name}.json")
    path.write_text(json.dumps({**sidecar, **(more or {})}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def source_of(d: sg.Dictionary, latents: Literal["alive", "all"] = "alive") -> dict[str, Any]:
    """Return the name, address and fingerprint of a dictionary, with `latents` unless only alive ones were loaded."""
    source = {"name": d.name, "address": d.address, "fingerprint": d.fingerprint}
    return source if latents == "alive" else {**source, "latents": latents}


def commit() -> str:
    """Return the current commit, marked if the package or analyses have changed since; "unknown" outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("" if not _git("status", "--porcelain", "--", "sae_geometry", "analyses") else " with changes")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def with_a_palette(path: Path) -> None:
    """Reduce a PNG to at most 256 colors, and keep its text entries."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with Image.open(path) as image:
        said = PngInfo()
        for key, value in getattr(image, "text", {}).items():
            said.add_text(key, value)
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        dpi = image.info.get("dpi", (300, 300))
    small.save(path, optimize=True, pnginfo=said, dpi=dpi)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
