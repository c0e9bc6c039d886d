"""Compute the PW-MCC of every pair of runs and other numbers of that name, and compare them with the published value.

python -m analyses.feature_consistency --runs FILE      your own runs, listed as in runs.toml
python -m analyses.feature_consistency --runs demo      the demo dictionaries instead, offline
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

import sae_geometry as sg
from analyses.common.command import Analysis, Options
from analyses.common.command import main as run
from analyses.common.drawing import INK, MUTED, footnote
from analyses.common.pairs import Pair, pair_of
from analyses.common.published import Measured
from analyses.common.runs import Run, RunFile
from analyses.common.steps import Bench, Made, Step

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
STAND_IN = {"local": "TopK"}  # the paper's kind that a kind of the demo stands in for
_FEWEST = 20  # latents per stratum


def plan(runs: RunFile, options: Options) -> list[Step]:
    chosen = runs.of("seed")
    missing = "" if len(chosen) > 1 else "the runs file has fewer than two runs in the role seed"
    return [
        Step("pw_mcc", "PW-MCC of every pair of runs, and chance", chosen,
             partial(_make_matrix, runs=runs, chosen=chosen), missing=missing),
        Step("definitions", "PW-MCC and other numbers of that name, for pairs of one kind", chosen,
             partial(_make_definitions, runs=runs, chosen=chosen), missing=missing),
        Step("frequency", "one-to-one similarity against firing frequency, if known", chosen,
             partial(_make_frequency, runs=runs, chosen=chosen), missing=missing),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    return run(ANALYSIS, arguments)


def _pairs(bench: Bench, chosen: tuple[Run, ...]) -> dict[tuple[int, int], Pair]:
    return {(i, j): pair_of(bench, chosen[i], chosen[j]) for i, j in itertools.combinations(range(len(chosen)), 2)}


def _make_matrix(bench: Bench, *, runs: RunFile, chosen: tuple[Run, ...]) -> Made:
    pairs = _pairs(bench, chosen)
    n = len(chosen)
    matrix, chance = np.full((n, n), np.nan), np.full((n, n), np.nan)
    for (i, j), pair in pairs.items():
        matrix[i, j] = matrix[j, i] = pair.pw_mcc
        chance[i, j] = chance[j, i] = pair.paired_chance
    values: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for kind in dict.fromkeys(r.kind for r in chosen):
        of_kind = [p.pw_mcc for (i, j), p in pairs.items() if chosen[i].kind == chosen[j].kind == kind]
        name = f"pw-mcc/{STAND_IN.get(kind, kind) if runs.demo else kind}"
        if of_kind:
            spread = f"± {np.std(of_kind):.3f} over " if len(of_kind) > 1 else "of "
            values[name] = Measured(float(np.mean(of_kind)), f"{spread}{len(of_kind)} pair{'s' * (len(of_kind) > 1)}")
        else:
            missing[name] = f"there is only one run of kind {kind}, and a pair needs two"
    return Made(_draw_matrix(matrix, chance, chosen, runs.note), values, missing)


def _draw_matrix(matrix: np.ndarray, chance: np.ndarray, chosen: tuple[Run, ...], note: str) -> Figure:
    n = len(chosen)
    with sg.plots.paper_style():
        figure = Figure(figsize=(3.6, 3.6), layout="constrained")
        ax = figure.subplots()
        ax.imshow(matrix, vmin=0, vmax=1, cmap="GnBu")
        for i, j in itertools.product(range(n), repeat=2):
            if np.isnan(matrix[i, j]):
                continue
            ink = "white" if matrix[i, j] > 0.65 else INK
            ax.text(j, i - 0.08, f"{matrix[i, j]:.3f}", ha="center", va="center", fontsize=8, color=ink)
            if not np.isnan(chance[i, j]):
                ax.text(j, i + 0.22, f"{chance[i, j]:.3f}", ha="center", va="center", fontsize=6, color=ink)
        ax.set_xticks(range(n), [r.name for r in chosen], rotation=30, ha="right", fontsize=7)
        ax.set_yticks(range(n), [r.name for r in chosen], fontsize=7)
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_title("PW-MCC: mean signed cosine, optimal one-to-one", loc="left", fontsize=8, fontweight="bold")
        footnote(figure, f"Small print: expected by chance, against the turned run. All latents. {note}")
    return figure


def _make_definitions(bench: Bench, *, runs: RunFile, chosen: tuple[Run, ...]) -> Made:
    pairs = {k: p for k, p in _pairs(bench, chosen).items() if chosen[k[0]].kind == chosen[k[1]].kind}
    shown = (
        ("PW-MCC (optimal one-to-one)", ORANGE, lambda p: p.pw_mcc),
        ("mean max cosine, A → B", BLUE, lambda p: float(p.decoder.nearest.mean())),
        ("mean max cosine, B → A", "#56B4E9", lambda p: float(p.decoder.back.mean())),
        ("share shared (> 0.7, decoder and encoder)", GREEN, lambda p: p.shared()),
        ("share with the same partner", PURPLE, lambda p: p.same_partner),
    )
    labels = [f"{chosen[i].name}, {chosen[j].name}" for i, j in pairs]
    with sg.plots.paper_style():
        figure = Figure(figsize=(sg.plots.PAGE_WIDTH, 0.9 + 0.75 * len(pairs)), layout="constrained")
        ax = figure.subplots()
        height = 0.8 / len(shown)
        for at, (label, color, value) in enumerate(shown):
            where = np.arange(len(pairs)) + (at - (len(shown) - 1) / 2) * height
            bars = ax.barh(where, [value(p) for p in pairs.values()], height * 0.9, color=color, label=label)
            ax.bar_label(bars, fmt="%.3f", fontsize=6, padding=2)
        # Each chance line spans its bars: the first is one-to-one, the next two are nearest.
        for at, pair in enumerate(pairs.values()):
            for chance, first, n_bars in ((pair.paired_chance, 0, 1), (pair.chance, 1, 2)):
                line = [at - 0.4 + first * height, at - 0.4 + (first + n_bars) * height]
                ax.plot([chance] * 2, line, color="black", linewidth=0.9, linestyle=(0, (1, 1.5)))
        ax.set_yticks(range(len(pairs)), labels, fontsize=7)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1), xlabel="one pair of runs, five numbers")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=6.5)
        footnote(figure, f"Dotted: chance of the PW-MCC and of the mean max cosines. All latents. {runs.note}")
    return Made(figure)


def _make_frequency(bench: Bench, *, runs: RunFile, chosen: tuple[Run, ...]) -> Made:
    with sg.plots.paper_style():
        figure = Figure(figsize=(3.6, 2.8), layout="constrained")
        ax = figure.subplots()
        known = 0
        for at, (i, j) in enumerate(
            (i, j) for i, j in itertools.combinations(range(len(chosen)), 2) if chosen[i].kind == chosen[j].kind
        ):
            pair, d = pair_of(bench, chosen[i], chosen[j]), bench.dictionary(chosen[i])
            if d.frequency is None:
                continue
            known += 1
            strata = _strata(d.frequency.cpu().numpy(), pair.decoder.paired)
            color = (BLUE, ORANGE, GREEN, PURPLE)[at % 4]
            x, mean, error = (np.array(v) for v in zip(*strata, strict=True))
            ax.errorbar(x, mean, yerr=1.96 * error, color=color, marker="o", markersize=3, linewidth=1.1,
                        label=f"{chosen[i].name} and {chosen[j].name}")  # fmt: skip
            if not np.isnan(pair.paired_chance):
                ax.axhline(pair.paired_chance, color=color, linewidth=0.8, linestyle=(0, (1, 1.5)))
        if known:
            ax.set_xscale("log")
            ax.legend(loc="upper left", fontsize=6.5)
        else:
            ax.text(0.5, 0.5, "not available:\nfiring frequencies unknown", transform=ax.transAxes, ha="center",
                    va="center", color=MUTED)  # fmt: skip
        ax.set(xlabel="firing frequency", ylabel="one-to-one cosine", ylim=(0, 1))
        dots = "Eighths of the latents that fire; mean and 95% over latents. Dotted: chance."
        footnote(figure, f"{dots} {runs.note}")
    return Made(figure)


def _strata(frequency: np.ndarray, paired: np.ndarray, n: int = 8) -> list[tuple[float, float, float]]:
    """Return (middle frequency, mean cosine, standard error) of equal-sized strata of firing, matched latents."""
    rows = np.flatnonzero((frequency > 0) & np.isfinite(paired))
    order = rows[np.argsort(frequency[rows], kind="stable")]
    parts = np.array_split(order, max(1, min(n, len(order) // _FEWEST)))
    return [
        (
            float(np.sqrt(frequency[p[0]] * frequency[p[-1]])),
            float(paired[p].mean()),
            float(paired[p].std(ddof=1) / np.sqrt(len(p))),
        )
        for p in parts
        if len(p) > 1
    ]


ANALYSIS = Analysis(
    "feature_consistency",
    "Compute the PW-MCC of every pair of runs (Song et al. 2025) and compare the published value with ours.",
    plan,
    latents="all",
)
