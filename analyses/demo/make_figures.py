"""The figures of the README, from the demo dictionaries: `python -m analyses.demo.make_figures`.

Each figure is written to `figures/` with a JSON sidecar that says by which command, from which commit and from which
weights it was made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import sae_geometry as sg

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python -m analyses.demo.make_figures"


def main(folder: Path) -> None:
    """Make every figure into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = {name: sg.load(f"demo:{name}") for name in ("local-seed0", "local-seed1", "e2e-seed0", "e2e-seed1")}
    local = [runs["local-seed0"], runs["local-seed1"]]
    comparison = sg.compare(local[0], local[1])
    embedding = sg.embed(local)

    write(hero(comparison, embedding), folder / "seeds", local)
    write(multiplicity(comparison), folder / "multiplicity", local)
    write(within(list(runs.values())), folder / "within", list(runs.values()))
    write(sg.plots.seeds_figure(sg.compare_seeds(list(runs.values()))), folder / "runs", list(runs.values()))
    write(sg.plots.agreement_figure(sg.encoder_agreement(*local)), folder / "agreement", local)
    split = sg.split_map("demo:local-narrow-seed0", local[0])
    write(sg.plots.splitting_figure(split), folder / "splitting", [split.narrow, split.wide])


def hero(comparison: sg.Comparison, embedding: sg.Embedding) -> Figure:
    """How alike two seeds are, and where they lie."""
    with sg.plots.paper_style():
        figure = Figure(figsize=(sg.plots.PAGE_WIDTH, 4.1), layout="constrained")
        panels: Any = figure.subfigures(1, 2, width_ratios=(1.05, 1), wspace=0.03)
        left, right = panels
        paired = comparison.one_to_one()
        sg.plots.draw_similarity(left, [comparison.a_to_b, comparison.b_to_a, paired.a_to_b, paired.b_to_a])
        sg.plots.embedding_scatter(embedding, ax=right.subplots())
    return figure


def multiplicity(comparison: sg.Comparison) -> Figure:
    """Where double counting sits."""
    with sg.plots.paper_style():
        figure = Figure(figsize=(3.8, 2.5), layout="constrained")
        comparison.plot_multiplicity(ax=figure.subplots())
    return figure


def within(dictionaries: Sequence[sg.Dictionary]) -> Figure:
    """How redundant each dictionary is."""
    return sg.plots.similarity_figure([sg.compare_within(d).nearest for d in dictionaries])


def write(figure: Figure, stem: Path, dictionaries: Sequence[sg.Dictionary]) -> None:
    """The figure as PNG and PDF, and its sidecar."""
    runs = [{"name": d.name, "address": d.address, "fingerprint": d.fingerprint} for d in dictionaries]
    sg.plots.save_figure(figure, stem, {"runs": runs, "seed": 0}, ("png", "pdf"))
    write_sidecar(stem, dictionaries, COMMAND)
    print(f"wrote {stem.name}.png, .pdf and .json")


def write_sidecar(stem: Path, dictionaries: Sequence[sg.Dictionary], command: str) -> None:
    """What says how a figure was made, beside it."""
    runs = [{"name": d.name, "address": d.address, "fingerprint": d.fingerprint} for d in dictionaries]
    sidecar = {"command": command, "commit": _commit(), "version": sg.__version__, "seed": 0, "runs": runs}
    stem.with_suffix(".json").write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")


def _commit() -> str:
    """The commit checked out, marked where the package has changed since; "unknown" outside a checkout."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("" if not _git("status", "--porcelain", "--", "sae_geometry", "analyses") else " with changes")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "figures")
