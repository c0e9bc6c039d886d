"""Compare checkpoints of two seeds over training, to see whether their similarity has converged."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

import sae_geometry as sg
from analyses.demo.train.files import write_text
from analyses.demo.train.plan import RUNS, Run

FIELDS = ("objective", "a", "b", "step", "mmcs", "share_above_0.7")


def curves(runs: Path) -> list[tuple[str | int | float, ...]]:
    """Compare every two seeds of an objective at each step for which both have a checkpoint, and return the rows.

    The seeds have the same width and different initial weights. The rows, with the columns `FIELDS`, are also written
    to `curves.csv` in `runs`. All latents are compared, because firing is measured only at the end of training.
    """
    rows = [row for a, b in _pairs() for row in _curve(runs, a, b)]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows(rows)
    write_text(runs / "curves.csv", table.getvalue())
    return rows


def _pairs() -> Iterator[tuple[Run, Run]]:
    starts = [r.init for r in RUNS]
    own = [r for r in RUNS if starts.count(r.init) == 1 or r.objective != "local"]
    for a, b in itertools.combinations(own, 2):
        if (a.objective, a.n_latents) == (b.objective, b.n_latents):
            yield a, b


def _curve(runs: Path, a: Run, b: Run) -> Iterator[tuple[str | int | float, ...]]:
    files = [{int(p.stem.split("-")[1]): p for p in (runs / r.name / "checkpoints").glob("step-*.pt")} for r in (a, b)]
    for step in sorted(files[0].keys() & files[1].keys()):
        first, second = (_read(found[step], run) for found, run in zip(files, (a, b), strict=True))
        found = sg.compare(first, second).a_to_b
        yield a.objective, a.name, b.name, step, found.mmcs, found.fraction_above(0.7)


def _read(path: Path, run: Run) -> sg.Dictionary:
    weights = torch.load(path, weights_only=True)
    return sg.Dictionary.from_decoder(weights["W_dec"].float(), latent_axis=0, name=run.name)
