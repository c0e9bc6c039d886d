"""Measure how much two seeds share, by width, and how often latents recur over nine seeds, as published and by us.

python -m analyses.seed_dependence                  the paper's runs, fetched once
python -m analyses.seed_dependence --only widths    one figure
python -m analyses.seed_dependence --runs demo      the demo dictionaries instead, offline
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sae_geometry as sg
from analyses.common.command import Analysis, Options
from analyses.common.command import main as run
from analyses.common.drawing import INK, MUTED, footnote
from analyses.common.pairs import Pair, pair_of, recurrence
from analyses.common.published import Expected, Measured, read_expected
from analyses.common.runs import Run, RunFile
from analyses.common.steps import Bench, Made, Step

THRESHOLD = 0.7
SEEDS = 9
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def plan(runs: RunFile, options: Options) -> list[Step]:
    return [_widths(runs), _curve(runs), _recurrence(runs)]


def main(arguments: Sequence[str] | None = None) -> int:
    return run(ANALYSIS, arguments)


def _pairs(runs: RunFile) -> list[tuple[str, Run, Run]]:
    """Return (label, first run, second run) for every width, or for every place if the runs have one."""
    seconds = {(r.place, r.width): r for r in runs.of("pair-b")}
    found = [(r, seconds.get((r.place, r.width))) for r in runs.of("pair-a")]
    return [(a.place or f"{a.width:,}", a, b) for a, b in found if b is not None]


def _widths(runs: RunFile) -> Step:
    pairs = _pairs(runs)
    chosen = tuple(r for _, a, b in pairs for r in (a, b))
    missing = "" if pairs else "the runs file has no runs in the roles pair-a and pair-b"
    return Step(
        "widths", "shared latents, same partner and MMCS of two seeds, by width", chosen,
        partial(_make_widths, runs=runs, pairs=pairs), {"threshold": THRESHOLD}, missing,
    )  # fmt: skip


def _make_widths(bench: Bench, *, runs: RunFile, pairs: list[tuple[str, Run, Run]]) -> Made:
    values: dict[str, Measured] = {}
    rows: dict[str, list[float]] = {}
    for _, a, b in pairs:
        pair = pair_of(bench, a, b)
        key = a.stands_for or a.width
        numbers = {
            f"shared/{key}/one-to-one": pair.shared(THRESHOLD),
            f"shared/{key}/double-counting": pair.shared_nearest(THRESHOLD),
            f"shared/{key}/one-to-one, same partner": pair.shared_same(THRESHOLD),
            f"same-partner/{key}": pair.same_partner,
            f"mmcs/{key}": pair.mmcs,
        }
        values |= {name: Measured(v, f"(chance {pair.chance:.3f})" if "mmcs" in name else "") for name, v in
                   numbers.items()}  # fmt: skip
        for name, v in zip(("one-to-one", "double", "both agree", "same", "mmcs"), numbers.values(), strict=True):
            rows.setdefault(name, []).append(v)
        rows.setdefault("chance", []).append(pair.chance)
    figure = _draw_widths([label for label, _, _ in pairs], rows, [] if runs.demo else _published(pairs), runs.note)
    return Made(figure, values)


def _published(pairs: list[tuple[str, Run, Run]]) -> list[tuple[float | None, float | None]]:
    """Return the published (share shared one to one, MMCS) of each pair; None if not published."""
    known = {e.name: e.published for e in _expected()}
    return [(known.get(f"shared/{a.width}/one-to-one"), known.get(f"mmcs/{a.width}")) for _, a, _ in pairs]


def _draw_widths(
    labels: list[str], rows: dict[str, list[float]], published: list[tuple[float | None, float | None]], note: str
) -> Figure:
    looks = [
        ("same", "same partner by decoder and encoder", PURPLE, "s"),
        ("mmcs", "MMCS of decoders (double counting)", GREEN, "^"),
        ("double", f"both nearest cosines > {THRESHOLD:g}", BLUE, "v"),
        ("one-to-one", f"both one-to-one cosines > {THRESHOLD:g}", ORANGE, "o"),
        ("both agree", "the same, with the same partner", INK, "x"),
    ]
    with sg.plots.paper_style():
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        ax = figure.subplots()
        where = np.arange(len(labels))
        joined = "-" if len(labels) > 2 else ""
        for at, (name, label, color, marker) in enumerate(looks):
            apart = 0 if joined else 0.07 * (at - 2)  # keeps markers of the same height apart
            ax.plot(
                where + apart, rows[name], color=color, marker=marker, markersize=4.5, linestyle=joined, label=label
            )
        beneath = 0 if joined else -0.07  # the offset of the MMCS
        ax.plot(
            where + beneath,
            rows["chance"],
            color=MUTED,
            marker="_",
            markersize=9,
            linestyle="",
            label="chance of the MMCS",
        )
        for at, (share, mmcs) in enumerate(published):
            for value in (share, mmcs):
                if value is not None:
                    ax.plot(at, value, marker="o", markersize=9, markerfacecolor="none", color=MUTED, linewidth=0)
        ax.set_xticks(where, labels)
        ax.set(
            ylim=(-0.02, 1),
            xlim=(-0.5, len(labels) - 0.5),
            xlabel="latents of each of two seeds",
            ylabel="share of latents; MMCS",
        )
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=6.5)
        rings = "Rings: published. " if published else ""
        footnote(figure, f"{rings}All latents, dead ones too, as the paper counts. {note}")
    return figure


def _curve(runs: RunFile) -> Step:
    pairs = _pairs(runs)
    chosen = tuple(r for _, a, b in pairs for r in (a, b))
    missing = "" if pairs else "the runs file has no runs in the roles pair-a and pair-b"
    return Step(
        "thresholds", "shared latents at every threshold, not only 0.7", chosen,
        partial(_make_curve, runs=runs, pairs=pairs), missing=missing,
    )  # fmt: skip


def _make_curve(bench: Bench, *, runs: RunFile, pairs: list[tuple[str, Run, Run]]) -> Made:
    levels = np.linspace(0, 1, 101)
    with sg.plots.paper_style():
        figure = Figure(figsize=(sg.plots.PAGE_WIDTH, 2.6), layout="constrained")
        axes: Any = figure.subplots(1, 2, sharey=True)
        shades = ("#08306b", "#2171b5", "#6baed6", "#fd8d3c", "#a63603") if len(pairs) > 2 else (BLUE, ORANGE)
        for at, (label, a, b) in enumerate(pairs):
            pair = pair_of(bench, a, b)
            color = shades[at % len(shades)]
            ways = ((axes[0], pair.shared, "-"), (axes[0], pair.shared_nearest, ":"), (axes[1], pair.shared, "-"),
                    (axes[1], pair.shared_same, "--"))  # fmt: skip
            for ax, share, dash in ways:
                name = f"{label} (n = {len(pair.decoder.paired):,})" if dash == "-" else None
                ax.plot(
                    levels, [share(float(t)) for t in levels], color=color, linestyle=dash, label=name, linewidth=1.1
                )
        _threshold(axes[0], "one-to-one (solid), double counting (dotted)")
        _threshold(axes[1], "one-to-one (solid), and same partner (dashed)")
        axes[0].set_ylabel("share with both cosines above")
        axes[1].legend(loc="upper right", fontsize=6.5, frameon=True, facecolor="white", edgecolor="none")
        said = f"Decoder and encoder cosine both above the threshold; vertical: {THRESHOLD}. All latents."
        footnote(figure, f"{said} {runs.note}")
    return Made(figure)


def _threshold(ax: Axes, title: str) -> None:
    ax.axvline(THRESHOLD, color=MUTED, linewidth=0.8, linestyle=(0, (1, 1.5)))
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold")
    ax.set_title(title, loc="left", fontsize=7)


def _recurrence(runs: RunFile) -> Step:
    chosen = runs.of("seed")
    missing = "" if len(chosen) > 1 else "the runs file has fewer than two runs in the role seed"
    return Step(
        "recurrence", "share of latents found in exactly 1, 2, … seeds", chosen,
        partial(_make_recurrence, runs=runs, chosen=chosen), {"threshold": THRESHOLD}, missing,
    )  # fmt: skip


def _make_recurrence(bench: Bench, *, runs: RunFile, chosen: tuple[Run, ...]) -> Made:
    pairs: dict[tuple[int, int], Pair] = {}
    for i, j in itertools.combinations(range(len(chosen)), 2):
        bench.say(f"recurrence: {chosen[i].name} and {chosen[j].name}")
        pairs[i, j] = pair_of(bench, chosen[i], chosen[j])
    widths = [len(pairs[0, 1].decoder.paired), *(len(pairs[0, j].decoder.back) for j in range(1, len(chosen)))]
    shares = recurrence(widths, pairs, THRESHOLD)
    n = len(chosen)
    values = {f"recurrence/{n}/{k + 1}": Measured(float(s)) for k, s in enumerate(shares)}
    published = {} if runs.demo else {e.name: e.published for e in _expected() if e.published is not None}
    with sg.plots.paper_style():
        figure = Figure(figsize=(4.4, 2.6), layout="constrained")
        ax = figure.subplots()
        where = np.arange(1, n + 1)
        bars = ax.bar(where, shares, 0.68, color=ORANGE, label="ours")
        ax.bar_label(bars, [f"{s:.1%}" for s in shares], fontsize=6, padding=2)
        theirs = [published.get(f"recurrence/{n}/{k}", np.nan) for k in where]
        if np.isfinite(theirs).any():
            ax.plot(where, theirs, marker="o", markersize=6, markerfacecolor="none", color=INK, linewidth=0,
                    label="published")  # fmt: skip
            ax.legend(loc="upper right", fontsize=6.5)
        ax.set_xticks(where)
        ax.set(xlabel=f"of {n} runs, found in exactly", ylabel="share of latents")
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        ax.margins(y=0.15)
        what = f"all {sum(widths):,} latents of {n} runs; found: both one-to-one cosines > {THRESHOLD:g}"
        ax.set_title(what, loc="left", fontsize=7)
        footnote(figure, f"1: in no other run. {runs.note}")
    told = {e.name: f"{n} runs, not {SEEDS}" for e in _expected() if e.step == "recurrence"}
    return Made(figure, values, {} if n == SEEDS else told)


def _expected() -> tuple[Expected, ...]:
    return read_expected(ANALYSIS.folder / "expected.toml")


ANALYSIS = Analysis(
    "seed_dependence",
    "Measure how much two seeds share and how often latents recur (Paulo & Belrose 2025), as published and by us.",
    plan,
    latents="all",
)
