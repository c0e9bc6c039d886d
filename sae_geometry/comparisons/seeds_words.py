"""Printed summary of a comparison of many runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import aligned, counted, or_dash, percent, wrap
from sae_geometry.results.warnings import WIDTH

SHOWN = 12  # maximum number of runs in a printed matrix
_MOST_ROWS = 5


def found_table(incidence: np.ndarray, elsewhere: float) -> list[str]:
    """Return a table of the number of distinct latents found in all runs, in fewer runs, and in only one.

    `elsewhere` is the share of latents in only one run whose nearest in any other is significant; nan if undefined.
    """
    n, total = len(incidence), max(int(incidence.sum()), 1)
    counts = [(n, n, f"found in all {n}")]
    counts += [(k, k, f"in {k}") for k in range(n - 1, 1, -1)]
    if len(counts) >= _MOST_ROWS:
        counts = [counts[0], (n // 2 + 1, n - 1, f"in {n // 2 + 1} to {n - 1}"), (2, n // 2, f"in 2 to {n // 2}")]
    rows = [(label, int(incidence[low - 1 : high].sum())) for low, high, label in [*counts, (1, 1, "in one only")]]
    lines = aligned([(label, f"{count:>9,}", f"{percent(count / total):>8}") for label, count in rows])
    lines[0] += f"   of {counted(total, 'distinct latent')}"
    if elsewhere > 0:
        lines[-1] += f"   {percent(elsewhere)} of them significant elsewhere"
    return lines


def spread_table(rows: Sequence[tuple[str, np.ndarray, np.ndarray, bool]]) -> list[str]:
    """Return a table of the least, mean and greatest value over ordered pairs of runs, and the mean by chance.

    Each row has a name, values [N, N], null expectations [N, N], and whether the values are shares.
    """

    def cell(value: float, is_share: bool) -> str:
        return percent(value) if is_share else or_dash(value, ".3f")

    table: list[tuple[str, ...]] = [("over ordered pairs of runs", "least", "mean", "most", "by chance")]
    for name, values, chance, is_share in rows:
        known = values[np.isfinite(values)]
        expected = chance[np.isfinite(chance)]
        numbers = [f(known) if len(known) else float("nan") for f in (np.min, np.mean, np.max)]
        by_chance = float(expected.mean()) if len(expected) else float("nan")
        table.append((name, *(cell(float(v), is_share) for v in (*numbers, by_chance))))
    return aligned(table)


def names_line(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return the number of runs, the number of groups and the names, in at most two lines."""
    kinds = list(dict.fromkeys(groups))
    of = f" of {len(kinds)} kinds" if len(kinds) > 1 else ""
    listed = ", ".join(shown(name, 30) for name in names)
    lines = wrap(f"{len(names)} runs{of}: {listed}", WIDTH, subsequent_indent="  ")
    return lines if len(lines) <= 2 else [lines[0], shown(lines[1], WIDTH - 4) + " …"]


def printed(matrix: np.ndarray, names: Sequence[str], form: str) -> list[str]:
    """Return a matrix [N, N] over ordered pairs of runs as aligned lines, for at most 12 runs."""
    among = range(min(len(names), SHOWN))
    head = ("", *(f"[{j}]" for j in among))
    rows = [(f"[{i}] {names[i]}", *("·" if i == j else or_dash(matrix[i, j], form) for j in among)) for i in among]
    more = [f"… and {counted(len(names) - SHOWN, 'run')} more: see pairs.parquet"] if len(names) > SHOWN else []
    return aligned([head, *rows]) + more
