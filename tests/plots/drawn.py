"""Results of any size and with any names, invented rather than computed, so that every figure is drawn quickly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_geometry import plots
from sae_geometry.nulls import Controls, Expected
from sae_geometry.pairwise.double_counting import Count, DoubleCounting
from sae_geometry.pairwise.matching_result import Matching
from sae_geometry.plots.style import new_figure


def matching(source: str, target: str, n: int, m: int, method: str = "nearest", seed: int = 0) -> Matching:
    """Return a matching in which two thirds of the latents are close to a partner, with a known null expectation."""
    rng = np.random.default_rng(seed)
    cosine = np.where(rng.random(n) < 0.6, rng.beta(9, 2, n), rng.beta(5, 12, n))
    row = rng.permutation(n) % m if method == "nearest" else np.arange(n)
    row[: n // 20] = 0
    row = np.where(row < m, row, -1)
    if method != "nearest":
        row[1 : n // 20] = -1
    cosine[row < 0] = np.nan
    control = np.sort(rng.beta(5, 12, (n, 3)), axis=1)[:, ::-1].copy()
    near = control[:, 0].copy()
    controls = Controls(target=cosine[:, None], own=near, turned=near, decoys=control, ratio=1.0, turned_means=(0.33,))
    pairs = None if method == "nearest" else Expected(0.26, 0.001, float(min(n, m)), 3)
    return Matching(
        source, target, method, "decoder", True, np.arange(n), np.arange(m), cosine, cosine, row, row,
        np.zeros(n, dtype=bool), controls, 576, pairs,
    )  # fmt: skip


def curves(a: str, b: str, n: int) -> list[Matching]:
    m = n - n // 50
    pairs = [matching(a, b, n, m), matching(b, a, m, n, seed=1)]
    return [*pairs, matching(a, b, n, m, "optimal"), matching(b, a, m, n, "optimal", seed=1)]


def counting(n: int) -> DoubleCounting:
    rows: Any = [("nearest", "a_to_b", 0.557), ("nearest", "b_to_a", 0.534), ("mutual", "both", 0.71)]
    rows += [("greedy", "both", 0.49), ("optimal", "both", 0.497)]
    counts = tuple(Count(name, way, n, mean, 0.4, 0.3) for name, way, mean in rows)
    return DoubleCounting(counts, 0.1, 0.1, (), ())


def dictionary(name: str, n: int, seed: int = 0) -> Any:
    frequency = 10 ** np.random.default_rng(seed).uniform(-6, -1, n)
    frequency[: n // 20] = 0
    return SimpleNamespace(name=name, n_latents=n, frequency=torch.from_numpy(frequency), metadata={"kind": "local"})


def embedding(names: Sequence[str], n: int, n_regions: int = 30) -> Any:
    """Return an embedding of runs of n latents, each in a cloud, with regions that lie close together."""
    rng = np.random.default_rng(0)
    total = n * len(names)
    middles = rng.uniform(-8, 8, (n_regions, 2))
    of = rng.integers(n_regions, size=total)
    coords = (middles[of] + rng.normal(0, 0.6, (total, 2))).astype(np.float32)
    owner = np.repeat(np.arange(len(names)), n)
    letters = [chr(65 + k) if k < 26 else f"A{chr(65 + k - 26)}" for k in range(n_regions)]
    regions = [
        SimpleNamespace(
            letter=letters[k], members=np.flatnonzero(of == k), center=tuple(middles[k]), outline=(), marks=()
        )
        for k in range(n_regions)
    ]
    dictionaries = [dictionary(name, n, at) for at, name in enumerate(names)]
    table = pd.DataFrame(
        {
            "max_cosine": rng.uniform(0, 1, total),
            "one_to_one_cosine": rng.uniform(0, 1, total),
            "frequency": np.concatenate([d.frequency.numpy() for d in dictionaries]),
        }
    )
    table.loc[: n // 10, "frequency"] = np.nan
    lines = (
        "k = 15, 50: neighbors preserved 61%, 68%; trustworthiness 0.961, 0.948",
        "3 seeds: a point moves by 0.42 radii (unrelated: 1.2); 58% of neighbors stay",
        "neighbors from another run: 41.0% in the original space, 43.1% in the layout, 50.0% ± 0.3% if labels were "
        "shuffled",
    )
    return SimpleNamespace(
        coords=coords, owner=owner, names=list(names), dictionaries=dictionaries,
        params={"n_neighbors": 15, "seed": 0, "backend": "umap-learn 0.5.9"},
        evidence=SimpleNamespace(lines=lambda: lines), to_pandas=lambda: table,
        regions=SimpleNamespace(
            regions=regions, how="HDBSCAN on the picture, at least 245 latents", share_inside=0.8,
            params={"method": "hdbscan"},
        ),
    )  # fmt: skip


def seeds(names: Sequence[str], groups: Sequence[str]) -> Any:
    k = len(names)
    rng = np.random.default_rng(0)
    none = np.where(np.eye(k, dtype=bool), np.nan, 1.0)
    histogram = np.histogram(rng.beta(8, 4, 5000), np.linspace(-1, 1, 401))[0]
    pairs = {(i, j): SimpleNamespace(histogram=[histogram, histogram]) for i in range(k) for j in range(i + 1, k)}
    counts = np.linspace(24_000, 60_000, k)
    return SimpleNamespace(
        names=list(names), labels=list(names), groups=list(groups), mmcs=rng.uniform(0.2, 0.8, (k, k)) * none,
        chance=np.full((k, k), 0.33) * none, shared=rng.uniform(0.1, 0.5, (k, k)) * none,
        shared_chance=np.full((k, k), 1e-17) * none, paired=rng.uniform(0.1, 0.6, (k, k)) * none,
        paired_chance=np.full((k, k), 0.26) * none, paired_name="PW-MCC", threshold=0.7,
        recurrence_shares=np.full(k, 1 / k), pairs=pairs,
        rarefaction=SimpleNamespace(
            n_runs=k, expected=counts, low=counts - 300, high=counts + 300,
            further=counts[-1] + np.arange(1, 4) * 900.0, further_low=counts[-1] + np.arange(1, 4) * 500.0,
            further_high=counts[-1] + np.arange(1, 4) * 1500.0,
        ),
    )  # fmt: skip


def agreement(a: str, b: str, n: int) -> Any:
    rng = np.random.default_rng(0)
    decoder = rng.beta(4, 3, n)
    encoder = np.clip(decoder + rng.normal(0, 0.15, n), -0.2, 1)
    edges = np.logspace(-6, -1, 6)
    middle = np.linspace(0.4, 0.7, 5)
    strata = pd.DataFrame(
        {
            "lowest_frequency": edges[:-1], "highest_frequency": edges[1:], "mean_decoder_cosine": middle,
            "low": middle - 0.02, "high": middle + 0.02,
        }
    )  # fmt: skip
    return SimpleNamespace(
        a=dictionary(a, n), b=dictionary(b, n, 1), threshold=0.7, decoder_cosine=decoder, encoder_cosine=encoder,
        decoder=SimpleNamespace(a_to_b=SimpleNamespace(chance=0.33)),
        counts=lambda: dict.fromkeys(("both high", "encoder only", "decoder only", "both low"), n),
        by_frequency=lambda: strata,
    )  # fmt: skip


def span(a: str, b: str, n: int) -> Any:
    rng = np.random.default_rng(0)
    explained = np.sort(rng.uniform(0, 1, (n, 6)), axis=1)
    overlap = np.linspace(0.9, 0.4, 6)
    return SimpleNamespace(
        a=dictionary(a, n), b=dictionary(b, n), threshold=0.7, unmatched=np.arange(n), n_nearest=(1, 2, 4, 8, 16, 32),
        explained=explained, explained_by_chance=explained / 2, ranks=(1, 2, 4, 8, 16, 32), overlap=overlap,
        overlap_by_chance=overlap / 2, overlap_isotropic=overlap / 4,
    )  # fmt: skip


def split(a: str, b: str, n: int) -> Any:
    rng = np.random.default_rng(0)
    explained = np.sort(rng.uniform(0, 1, (n, 5)), axis=1)
    return SimpleNamespace(
        narrow=dictionary(a, n), wide=dictionary(b, 4 * n), combination=SimpleNamespace(explained=explained),
        explained_by_chance=explained / 2, n_children=rng.poisson(2, n), n_novel=2 * n,
    )  # fmt: skip


def drift(name: str, n: int, steps: int = 9) -> Any:
    cosine = np.clip(np.linspace(0, 1, steps)[:, None] + np.random.default_rng(0).normal(0, 0.05, (steps, n)), -1, 1)
    samples = np.array([100_000 * 2**k for k in range(steps - 1)] + [-1])
    labels = [*(f"samples_{s}.pt" for s in samples[:-1]), name]
    return SimpleNamespace(
        labels=labels, samples=samples, to_final=cosine, birth=np.arange(n) % steps, threshold=0.7
    )  # fmt: skip


def flow(n: int, layers: int = 6) -> Any:
    alive = np.array([[int(n * 0.5 ** (to - at)) if to >= at else 0 for to in range(layers)] for at in range(layers)])
    steps = [SimpleNamespace(n_births=n // 2, n_deaths=n // 3, n_splits=n // 9, n_merges=n // 11)] * (layers - 1)
    return SimpleNamespace(
        layers=[None] * layers, steps=steps, layer_names=[str(20 + k) for k in range(layers)], survivors=alive
    )  # fmt: skip


def nearest(name: str, n: int, vectors: int = 8) -> Any:
    cosine = np.sort(np.random.default_rng(0).uniform(0.2, 0.9, (vectors, 10)), axis=1)[:, ::-1]
    ids = n + np.arange(vectors)
    return SimpleNamespace(
        vectors=SimpleNamespace(name=name, latent_ids=ids), cosine=cosine, expected=np.full(vectors, 0.3),
        n_candidates=12 * n,
    )  # fmt: skip


def by_index(a: str, b: str, n: int) -> Any:
    norms = np.random.default_rng(0).beta(3, 3, n)
    norms[: n // 10], norms[-n // 10 :] = 0.01, 0.99
    classes = np.where(norms <= 0.1, "only A", np.where(norms >= 0.9, "only B", "shared"))
    return SimpleNamespace(
        a=dictionary(a, n), b=dictionary(b, n), relative_norm=norms, classes=classes, cuts=(0.1, 0.9), by_chance=0.02,
        counts={name: int((classes == name).sum()) for name in ("shared", "only A", "only B")},
        cosine=np.random.default_rng(1).beta(5, 2, n),
    )  # fmt: skip


def tokens(name: str, n: int) -> Any:
    near = np.random.default_rng(0).beta(3, 8, n)
    return SimpleNamespace(
        dictionary=dictionary(name, n), nearest=near, turned_nearest=near / 2, readable=near > 0.4
    )  # fmt: skip


def projection(names: Sequence[str], n: int) -> Any:
    old = embedding(names, n)
    table = pd.DataFrame(old.coords, columns=["x", "y"])
    line = "12.1% of the placed latents lie farther from their neighbors than those of the embedding from theirs"
    return SimpleNamespace(
        coords=old.coords[:n], owner=np.zeros(n, dtype=int), names=list(names[:1]), line=lambda: line,
        dictionaries=old.dictionaries[:1], onto=SimpleNamespace(table=table),
    )  # fmt: skip


def points(names: Sequence[str]) -> pd.DataFrame:
    k = len(names)
    return pd.DataFrame(
        {
            "row": [names[0], names[1]] * (k // 2), "kind": ["local", "e2e"] * (k // 2), "run": list(names),
            "mmcs": np.linspace(0.2, 0.8, k), "l0": np.linspace(10, 60, k), "ce": [np.nan] * k,
        }
    )  # fmt: skip


Draw = Callable[[Axes], Axes]


def axes_of(names: Sequence[str], n: int) -> dict[str, tuple[tuple[float, float], Draw]]:
    """Return every function that draws on axes, with the size in inches at which a command saves its figure."""
    a, b = names[:2]
    four, drawn, runs = curves(a, b, n), embedding(names[:2], n), seeds(names, [names[0], names[1]] * (len(names) // 2))
    along, close, same = flow(n), nearest(a, n), by_index(a, b, n)
    both, over, parts = agreement(a, b, n), span(a, b, n), split(a, b, n)
    square = (3.6, 4.1)
    views: dict[str, tuple[tuple[float, float], Draw]] = {
        f"umap {color}": (square, lambda ax, color=color: plots.embedding_scatter(drawn, ax, color=color))
        for color in ("owner", "region", "matched", "frequency", "max-cosine")
    }
    return views | {
        "partners": ((4.1, 2.9), lambda ax: plots.partners_histogram(four[0], ax)),
        "ecdf": ((4.1, 3.5), lambda ax: plots.similarity_ecdf(four, ax)),
        "histogram": ((4.1, 3.1), lambda ax: plots.similarity_histogram(four, ax)),
        "multiplicity": ((3.6, 3.4), lambda ax: plots.multiplicity_bars(four[:2], ax)),
        "double counting": ((3.8, 2.7), lambda ax: plots.counting_bars(counting(n), four[0], ax)),
        "unmatched": ((3.6, 4.0), lambda ax: plots.unmatched_scatter(drawn, ax)),
        "heatmap": ((3.25, 3.1), lambda ax: plots.seeds_heatmap(runs, "shared", ax)),
        "recurrence": ((3.25, 2.4), lambda ax: plots.recurrence_bars(runs, ax)),
        "rarefaction": ((3.25, 2.4), lambda ax: plots.rarefaction_curve(runs.rarefaction, ax)),
        "frequency": ((3.7, 3.0), lambda ax: plots.frequency_hexbin(both, ax)),
        "span curve": ((3.25, 3.0), lambda ax: plots.span_curve(over, ax)),
        "children": ((3.25, 2.4), lambda ax: plots.children_bars(parts, ax)),
        "explained": ((3.25, 3.2), lambda ax: plots.explained_ecdf(parts, ax)),
        "drift": ((3.4, 3.2), lambda ax: plots.drift_bands(drift(a, n), ax)),
        "certainty": ((3.6, 2.8), lambda ax: plots.certainty_curve([(m, m.similarity) for m in four[2:]], ax)),
        "flow bundles": ((plots.PAGE_WIDTH, 3.4), lambda ax: plots.flow_bundles(along, ax)),
        "flow counts": ((plots.PAGE_WIDTH, 1.8), lambda ax: plots.flow_counts(along, ax)),
        "nearest": ((3.25, 3.0), lambda ax: plots.nearest_ranks(close, ax)),
        "relative norm": ((3.25, 2.4), lambda ax: plots.relative_norm_histogram(same, ax)),
        "same ids": ((3.25, 2.4), lambda ax: plots.same_id_histogram(same, ax)),
        "tokens": ((3.25, 2.8), lambda ax: plots.tokens_ecdf(tokens(a, n), ax)),
    }


def figures_of(names: Sequence[str], n: int) -> dict[str, Callable[[], Figure]]:
    """Return every figure that a command or a reproduction writes."""
    a, b = names[:2]
    four = curves(a, b, n)
    groups = [names[0], names[1]] * (len(names) // 2)

    def on(size: tuple[float, float], draw: Draw) -> Callable[[], Figure]:
        def made() -> Figure:
            with plots.paper_style():
                figure = new_figure(*size)
                draw(figure.subplots())
            return figure

        return made

    def panels() -> Figure:
        with plots.paper_style():
            figure = new_figure(3.4, 5.0)
            plots.draw_panels(figure, four[:3], labels=names[:3], colors=["#f0a70a"] * 3, title=f"{a} and {b}")
        return figure

    alone = {name: on(*entry) for name, entry in axes_of(names, n).items()}
    return alone | {
        "similarity": lambda: plots.similarity_figure(four),
        "within": lambda: plots.similarity_figure([matching(a, a, n, n)]),
        "within four": lambda: plots.similarity_figure([matching(x, x, n, n) for x in names[:4]]),
        "runs": lambda: plots.runs_figure(embedding(names[:4], n // 4)),
        "projection": lambda: plots.projection_figure(projection(names[:2], n // 2)),
        "matrices": lambda: plots.seeds_figure(seeds(names, groups)),
        "ridgeline": lambda: plots.ridgeline_figure(seeds(names[:4], groups[:4])),
        "ridgeline pooled": lambda: plots.ridgeline_figure(seeds(names, groups)),
        "recurrence figure": lambda: plots.recurrence_figure(seeds(names, groups)),
        "agreement": lambda: plots.agreement_figure(agreement(a, b, n)),
        "span": lambda: plots.span_figure(span(a, b, n)),
        "flow": lambda: plots.flow_figure(flow(n)),
        "by index": lambda: plots.by_index_figure(by_index(a, b, n)),
        "splitting": lambda: plots.splitting_figure(split(a, b, n)),
        "panels": panels,
        "facets": lambda: plots.facet_figure(points(names), {"l0": "L0", "ce": "loss"}),
    }


def labels_of(ax: Axes) -> list[str]:
    """Return the texts of a legend, each in one line."""
    return [text.get_text().replace("\n", " ").replace("\u00a0", " ") for text in ax.get_legend().get_texts()]
