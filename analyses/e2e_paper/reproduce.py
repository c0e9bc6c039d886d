"""Make every geometric figure of the end-to-end paper, and compare its published values with ours.

python -m analyses.e2e_paper                    the paper's runs, fetched once
python -m analyses.e2e_paper --only fig3a       one figure
python -m analyses.e2e_paper --runs demo        the demo dictionaries instead, offline
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import sae_geometry as sg
from analyses.common.command import Analysis, Options
from analyses.common.command import main as run
from analyses.common.drawing import columns_of_panels, footnote, region_outlines
from analyses.common.modes import n_modes
from analyses.common.published import Measured
from analyses.common.runs import Run, RunFile
from analyses.common.similarities import Similarities, across, within
from analyses.common.steps import Bench, Made, Step

KINDS = ("local", "e2e", "e2e+ds")
LAYERS = (2, 6, 10)
LAYER = 6  # the layer of Figure 3
N_NEIGHBORS, MIN_DIST, SEED = 15, 0.1, 1  # settings of the paper's UMAP
UNKNOWN_ALIVE = (
    "the weights came from a mirror that does not state which latents are alive, so all latents were compared"
)


def plan(runs: RunFile, options: Options) -> list[Step]:
    """Return the steps in the order of the paper, with figures over several layers only if there are several."""
    stated = tuple(dict.fromkeys(r.layer for r in runs.of("ce") if r.layer is not None))
    wanted, one = (stated, stated[:1]) if runs.demo else (LAYERS, (LAYER,))
    layers = tuple(layer for layer in wanted if layer in stated)
    over_layers = [_within("fig7", runs, layers), _types("fig8", runs, layers)]
    return [
        _within("fig3a", runs, one),
        _seeds(runs),
        _types("fig3c", runs, one),
        *(over_layers if len(wanted) > 1 else []),
        *(_umap(runs, layer, options) for layer in wanted),
        _facets(runs),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    return run(ANALYSIS, arguments)


def _within(name: str, runs: RunFile, layers: tuple[int, ...]) -> Step:
    chosen = _of_kinds(runs, layers)
    shows = f"within-dictionary similarity, {_layers(layers)}, runs of similar loss"
    return Step(name, shows, chosen, partial(_make_within, runs=runs, layers=layers), missing=_lacks(chosen, "local"))


def _make_within(bench: Bench, *, runs: RunFile, layers: tuple[int, ...]) -> Made:
    columns = []
    values: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for layer in layers:
        curves = {r.kind: within(bench, r) for r in _of_kinds(runs, (layer,))}
        columns.append((_place(runs, layer), list(curves.items())))
        values |= {f"within/{layer}/{kind}": _mean(curve) for kind, curve in curves.items()}
        for kind in KINDS[1:]:
            if kind in curves:
                name = f"within/{layer}/local-{kind}"
                values[name] = _difference(curves["local"], curves[kind])
                missing |= _unless_alive(name, curves["local"], curves[kind])
    figure = columns_of_panels(columns, xlabel="cosine to the nearest other latent", note=runs.note)
    return Made(figure, _without(values, missing), missing)


def _seeds(runs: RunFile) -> Step:
    pairs = [
        (r, other)
        for r in runs.of("figure-seed0")
        if (other := runs.find("figure-seed1", kind=r.kind, layer=r.layer)) is not None
    ]
    chosen = tuple(r for pair in pairs for r in pair)
    shows = f"similarity across seeds, {_layers(tuple(dict.fromkeys(r.layer or LAYER for r in chosen)))}"
    return Step("fig3b", shows, chosen, partial(_make_seeds, runs=runs, pairs=pairs), missing=_lacks(chosen, "local"))


def _make_seeds(bench: Bench, *, runs: RunFile, pairs: list[tuple[Run, Run]]) -> Made:
    panels = []
    values: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for a, b in pairs:
        curve = across(bench, a, b)
        panels.append((a.kind, curve))
        name = f"across-seeds/{a.layer}/{a.kind}"
        values[name] = _mean(curve)
        missing |= _unless_alive(name, curve)
    title = "Across seeds" + ("" if runs.demo else f", layer {LAYER}")
    figure = columns_of_panels(
        [(title, panels)], xlabel="cosine to the nearest latent\nof the other seed", note=runs.note
    )
    return Made(figure, _without(values, missing), missing)


def _types(name: str, runs: RunFile, layers: tuple[int, ...]) -> Step:
    chosen = _of_kinds(runs, layers)
    shows = f"similarity of e2e and e2e+ds latents to the local dictionary, {_layers(layers)}"
    return Step(name, shows, chosen, partial(_make_types, runs=runs, layers=layers), missing=_lacks(chosen, "local"))


def _make_types(bench: Bench, *, runs: RunFile, layers: tuple[int, ...]) -> Made:
    columns = []
    values: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for layer in layers:
        of_kind = {r.kind: r for r in _of_kinds(runs, (layer,))}
        panels = []
        for kind in KINDS[1:]:
            if kind not in of_kind:
                continue
            curve = across(bench, of_kind[kind], of_kind["local"])
            panels.append((kind, curve))
            name = f"across-types/{layer}/{kind}"
            modes = n_modes(curve)
            values |= {name: _mean(curve), f"{name}/modes": Measured(modes, "mode" if modes == 1 else "modes")}
            missing |= _unless_alive(name, curve) | _unless_alive(f"{name}/modes", curve)
        columns.append((_place(runs, layer), panels))
    figure = columns_of_panels(columns, xlabel="cosine to the nearest local latent", note=runs.note, suffix=" → local")
    return Made(figure, _without(values, missing), missing)


def _umap(runs: RunFile, layer: int, options: Options) -> Step:
    of_kind = {r.kind: r for r in _of_kinds(runs, (layer,))}
    pairs = [(of_kind[kind], of_kind["local"]) for kind in KINDS[1:] if kind in of_kind and "local" in of_kind]
    return Step(
        f"umap{layer}",
        f"UMAP of e2e or e2e+ds with local, layer {layer}, with regions",
        tuple(of_kind.values()),
        partial(_make_umap, runs=runs, layer=layer, pairs=pairs, n_epochs=options.n_epochs),
        {"n_neighbors": N_NEIGHBORS, "min_dist": MIN_DIST, "seed": SEED, "n_epochs": options.n_epochs},
        "" if pairs else f"the runs file has no pair of kinds at layer {layer}",
    )


def _make_umap(bench: Bench, *, runs: RunFile, layer: int, pairs: list[tuple[Run, Run]], n_epochs: int | None) -> Made:
    with sg.plots.paper_style():
        figure = Figure(figsize=(3.0 * len(pairs), 4.2), layout="constrained")
        figure.set_layout_engine("constrained", rect=(0, 0.05, 1, 0.9))  # leaves room for the title and the note
        axes: Any = figure.subplots(1, len(pairs), squeeze=False)[0]
        details = []
        for ax, (other, local) in zip(axes, pairs, strict=True):
            pair = [bench.dictionary(other), bench.dictionary(local)]
            e = sg.umap(pair, N_NEIGHBORS, min_dist=MIN_DIST, seed=SEED, n_epochs=n_epochs)
            sg.plots.embedding_scatter(e, ax=ax, style="e2e")
            region_outlines(ax, e)
            details.append(_described(e))
        figure.suptitle(_place(runs, layer), fontsize=8, fontweight="bold", x=0.01, ha="left")
        footnote(figure, f"Outlined: the largest regions, mostly of one run (dashed: mixed). {runs.note}")
    return Made(figure, details={"pictures": details})


def _described(e: sg.Embedding) -> dict[str, Any]:
    """Return the evidence and regions of a UMAP, for its sidecar."""
    regions = [
        {"region": r.letter, "verdict": r.verdict, **dict(zip(e.names, r.counts.tolist(), strict=True))}
        for r in e.regions.regions
    ]
    return {
        "params": dict(e.params),
        "evidence": "; ".join(e.evidence.lines()),
        "test": e.regions.test_in_words(),
        "regions": regions,
    }


def _facets(runs: RunFile) -> Step:
    drawn = runs.distinct(runs.of("facet") or runs.of("ce", "l0", "alive"))
    return Step(
        "facets",
        "mean within-dictionary max cosine against L0, loss increase and alive latents",
        (*drawn, *runs.of("ce")),
        partial(_make_facets, runs=runs, drawn=drawn),
        missing="" if drawn else "the runs file has no runs for this figure",
    )


def _make_facets(bench: Bench, *, runs: RunFile, drawn: tuple[Run, ...]) -> Made:
    import pandas as pd

    rows = []
    values: dict[str, Measured] = {}
    missing: dict[str, str] = {}
    for r in sorted(drawn, key=lambda r: (r.layer or 0, KINDS.index(r.kind))):
        curve = within(bench, r)
        d = bench.dictionary(r)
        said = {m: _number(d.metadata.get(m), r.known.get(m)) for m in ("l0", "ce_increase")}
        alive = _alive(d)
        rows.append({"row": r.place, "kind": r.kind, "run": r.name, "mmcs": curve.mmcs, "alive": alive, **said})
    for r in runs.of("ce"):
        name = f"alive/{r.layer}/{r.kind}"
        values[name] = Measured(_alive(bench.dictionary(r)))
        missing |= _unless_alive(name, within(bench, r))
    axes = {"l0": "L0", "ce_increase": "increase of the loss (nats)", "alive": "alive latents"}
    figure = sg.plots.facet_figure(pd.DataFrame(rows), axes)
    with sg.plots.paper_style():
        footnote(figure, runs.note)
    points = [{k: None if v != v else v for k, v in row.items()} for row in rows]  # JSON has no nan.
    return Made(figure, _without(values, missing), missing, {"points": points})


def _alive(d: sg.Dictionary) -> float:
    return float("nan") if d.alive.n_dead is None else float(d.alive.n_total - d.alive.n_dead)


def _of_kinds(runs: RunFile, layers: tuple[int, ...]) -> tuple[Run, ...]:
    """Return the runs of similar loss, layer by layer, in the paper's order of kinds."""
    found = (runs.find("ce", kind=kind, layer=layer) for layer in layers for kind in KINDS)
    return tuple(r for r in found if r is not None)


def _place(runs: RunFile, layer: int) -> str:
    found = runs.find("ce", layer=layer)
    return found.place if found else f"Layer {layer}"


def _layers(layers: tuple[int, ...]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(map(str, layers))}"


def _lacks(chosen: Sequence[Run], kind: str) -> str:
    return "" if any(r.kind == kind for r in chosen) else f"the runs file has no {kind} run for this figure"


def _mean(curve: Similarities) -> Measured:
    low, high = curve.mmcs - 1.96 * curve.error, curve.mmcs + 1.96 * curve.error
    return Measured(curve.mmcs, f"[{low:.3f}, {high:.3f}], by chance {curve.chance:.3f}")


def _difference(a: Similarities, b: Similarities) -> Measured:
    """Return the difference of two means, with an interval over latents that says nothing about other seeds."""
    value, error = a.mmcs - b.mmcs, float(np.hypot(a.error, b.error))
    return Measured(value, f"[{value - 1.96 * error:.3f}, {value + 1.96 * error:.3f}]")


def _unless_alive(name: str, *curves: Similarities) -> dict[str, str]:
    return {} if all(c.alive_known for c in curves) else {name: UNKNOWN_ALIVE}


def _without(values: dict[str, Measured], missing: dict[str, str]) -> dict[str, Measured]:
    return {name: v for name, v in values.items() if name not in missing}


def _number(*candidates: Any) -> float:
    found = (float(v) for v in candidates if isinstance(v, int | float) and not isinstance(v, bool))
    return next(found, float("nan"))


ANALYSIS = Analysis(
    "e2e_paper",
    "Make the geometric figures of the end-to-end paper (Braun et al. 2024), and compare its values with ours.",
    plan,
    seed=SEED,
)
