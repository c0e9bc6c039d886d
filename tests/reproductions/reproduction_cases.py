"""The commands and figures of the reproductions, and a function that calls one."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

from analyses.e2e_paper.reproduce import main as e2e_paper
from analyses.feature_consistency.reproduce import main as feature_consistency
from analyses.seed_dependence.reproduce import main as seed_dependence

MAINS: dict[str, Callable[[list[str]], int]] = {
    "e2e_paper": e2e_paper,
    "seed_dependence": seed_dependence,
    "feature_consistency": feature_consistency,
}
FIGURES = {
    "e2e_paper": ["fig3a", "fig3b", "fig3c", "umap24", "facets"],
    "seed_dependence": ["widths", "thresholds", "recurrence"],
    "feature_consistency": ["pw_mcc", "definitions", "frequency"],
}


def call(main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str, str]:
    """Call a command and return its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()
