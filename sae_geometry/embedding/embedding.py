"""UMAP of one or several dictionaries from exact cosine neighbors, with measures of its quality.

Neighbors come from the exact sweep, never from an approximate index, and are passed as a precomputed graph to the
backend (our optimizer on umap-learn's weights, umap-learn, or cuML on a GPU).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.distributed import Executor, settings
from sae_geometry.embedding.backends import Backend, choose_backend, lay_out
from sae_geometry.embedding.cross_run import Across, partners_across
from sae_geometry.embedding.neighbors import Neighbors, neighborhoods
from sae_geometry.embedding.quality import EVIDENCE_K, Evidence, measure_evidence
from sae_geometry.embedding.region_file import Shape
from sae_geometry.embedding.region_record import regions_record
from sae_geometry.embedding.regions import On, Regions, find_regions, given_regions, graph_distances, marked
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, ends, few
from sae_geometry.io.frozen import freeze
from sae_geometry.io.parquet import write_neuronpedia
from sae_geometry.io.progress import Progress
from sae_geometry.kernels.duplicates import first_equal
from sae_geometry.kernels.sweep import MAX_K
from sae_geometry.kernels.types import Sweep
from sae_geometry.labels.pairs import PairLabels, label_summary, pair_labels
from sae_geometry.matching.defaults import DISCOVERY_RATE, MOST_RUNS, THRESHOLD
from sae_geometry.pairwise.inputs import activity, describe_input, distinct, several
from sae_geometry.pairwise.same_space import ALLOWED, require_same_space
from sae_geometry.results.answer import Answer
from sae_geometry.results.store import write_json
from sae_geometry.sources import as_dictionary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sae_geometry.plots.embedding import Color

_SHOWN_REGIONS = 5


@dataclass(frozen=True, eq=False, repr=False)
class Embedding(Answer):
    """UMAP of one or several runs: position, run and id of each latent, with parameters and quality of the layout.

    Attributes:
        coords: float32 [N, 2]. Latents with bit-identical directions share a point.
        owner: int64 [N], index into `names`.
        latent_id: int64 [N], original id within its dictionary.
        names: the dictionaries' names.
        params: n_neighbors, min_dist, metric, seed, backend and its version.
        evidence: quality measures of the layout.
        regions: lettered regions with counts per run; `with_regions` replaces them.
        dictionaries: the embedded dictionaries.
        point: int64 [N], index of each latent's distinct direction.
        neighbors: exact neighbors of each distinct direction, the graph behind the layout.
        caveats: warnings to show with the layout: allowed mismatches, unknown spaces.
        swept: sweeps between pairs of dictionaries, kept for reuse.
    """

    coords: np.ndarray
    owner: np.ndarray
    latent_id: np.ndarray
    names: tuple[str, ...]
    params: Mapping[str, Any]
    evidence: Evidence
    regions: Regions
    dictionaries: tuple[Dictionary, ...]
    point: np.ndarray
    neighbors: Neighbors
    caveats: tuple[str, ...] = ()
    swept: Mapping[tuple[int, int], Sweep] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self)

    def across(self, progress: Progress | None = None) -> Across | None:
        """Return the partners of each latent in every other run (cached); None for one run or more than 24 runs."""
        if not 2 <= len(self.names) <= MOST_RUNS:
            return None
        cached: dict[str, Any] = vars(self)
        if "_across" not in cached:
            cached["_across"] = partners_across(self.dictionaries, self.swept, progress)
        found: Across = cached["_across"]
        return found

    def with_regions(
        self, min_size: int | None = None, *, on: On = "picture", shapes: Sequence[Shape] | None = None
    ) -> Embedding:
        """Return a copy of the embedding with other regions.

        Args:
            min_size: minimum number of latents in an HDBSCAN region; max(10, N / 100) if None.
            on: cluster by distances in the "picture" (the layout), or by cosine distance to the exact "neighbors".
            shapes: outlines to use instead of clustering.

        Raises:
            ValueError: an unknown `on`, or min_size below 2.
        """
        if on not in ("picture", "neighbors"):
            raise ValueError(f"on must be 'picture' (the layout) or 'neighbors'; got {on!r}")
        points = self.coords, self.owner, self.names
        if shapes is not None:
            found = given_regions(*points, shapes=shapes)
        else:
            distances = graph_distances(self.neighbors)[self.point][:, self.point] if on == "neighbors" else None
            found = find_regions(*points, distances=distances, min_size=min_size, on=on)
        return replace(self, regions=marked(found, self.dictionaries, self.owner, self.latent_id))

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table that `save` writes, by name: umap, one row per latent."""
        return {"umap": self.to_pandas()}

    def figures(
        self, style: str = "okabe-ito", colors: Sequence[str] = (), *, threshold: float = THRESHOLD
    ) -> Mapping[str, Figure]:
        """Return the figures that `save` writes, by name: umap, regions, umap-COLOR, runs and unmatched.

        Args:
            style: color scheme of the runs: "okabe-ito" or "e2e".
            colors: colorings of further figures: max-cosine, matched, frequency.
            threshold: cosine above which a latent counts as matched to its one-to-one partner.

        Raises:
            ValueError: an unknown style or color, or a color that needs data the runs lack.
        """
        from sae_geometry import plots

        plots.check_colors(colors, self.dictionaries)
        pictures: dict[str, Color] = {"umap": "owner", "regions": "region"}
        pictures |= {f"umap-{c}": cast("Color", c) for c in colors if c not in ("owner", "region")}
        found = {
            name: plots.figure_of(partial(self.plot, style=style, color=color, threshold=threshold), 3.6, 4.1)
            for name, color in pictures.items()
        }
        if len(self.names) > 1:
            found["runs"] = plots.runs_figure(self, style)
        if self.across() is not None:
            found["unmatched"] = plots.figure_of(
                lambda ax: plots.unmatched_scatter(self, ax, style, threshold=threshold), 3.6, 4.0
            )
        return found

    def write_extra(self, folder: Path) -> None:
        """Write `regions.json` and `neuronpedia.csv` to the folder."""
        write_neuronpedia(self.to_pandas(), folder / "neuronpedia.csv")
        record = regions_record(self.regions, self.dictionaries, self.owner, self.latent_id)
        write_json(folder / "regions.json", record)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per latent.

        Columns: run, latent_id, x, y; partners in the other runs, as in `Across.to_pandas`, if there are others;
        frequency and alive (null where unknown); region (null outside all regions).
        """
        names = np.array(self.names, dtype=object)
        table = pd.DataFrame(
            {"run": names[self.owner], "latent_id": self.latent_id, "x": self.coords[:, 0], "y": self.coords[:, 1]}
        )
        across = self.across()
        if across is not None:
            table = pd.concat([table, across.to_pandas()], axis=1)
        fires = pd.concat([pd.DataFrame(activity(d)) for d in self.dictionaries], ignore_index=True)
        table = table.assign(frequency=fires["frequency"], alive=fires["alive"])
        table["region"] = pd.array(self.regions.letters, dtype="string")
        return table

    def summary(self) -> dict[str, Any]:
        """Return parameters, evidence, points per run and regions as a JSON-ready dict."""
        counts = np.bincount(self.owner, minlength=len(self.names))
        across = self.across()
        return {
            "inputs": [describe_input(d) for d in self.dictionaries],
            "points": {name: int(c) for name, c in zip(self.names, counts, strict=True)},
            "different_directions": len(self.neighbors.indices),
            "params": dict(self.params),
            "evidence": {k: None if v != v else v for k, v in asdict(self.evidence).items()},
            "evidence_lines": list(self.evidence.lines()),
            "pairs": [] if across is None else across.summary(),
            "regions": {r.letter: r.verdict or r.size for r in self.regions.regions},
            **label_summary(self.meanings),
            "reproducible_with": "the same backend, version and seed",
            "caveats": list(self.caveats),
        }

    @cached_property
    def meanings(self) -> PairLabels | None:
        """Return the labels of latents and their nearest partners; None for one run or more than 24 runs."""
        if self.across() is None:
            return None
        table = self.to_pandas()
        found = (table["q_value"] <= DISCOVERY_RATE).fillna(False)
        table = table.assign(cosine=table["max_cosine"].astype(float), significant=found.astype(bool))
        return pair_labels(table.assign(partner_id=table["partner_id"].fillna(-1).astype(int)), self.dictionaries)

    def plot(
        self,
        ax: Axes | None = None,
        style: str = "okabe-ito",
        *,
        color: Color = "owner",
        threshold: float = THRESHOLD,
        legend: bool = True,
    ) -> Axes:
        """Draw a rasterized scatter plot in shuffled order, colored as in `plots.embedding_scatter`."""
        from sae_geometry import plots

        return plots.embedding_scatter(self, ax, style, color=color, threshold=threshold, legend=legend)

    def __repr__(self) -> str:
        counts = np.bincount(self.owner, minlength=len(self.names))
        runs = ends([f"{shown(n, 30)} ({c:,})" for n, c in zip(self.names, counts, strict=True)], 6)
        trust = self.evidence.lines()[: 1 + (self.evidence.n_seeds > 1)]
        mixing = ["", *self._mixing] if self._mixing else []
        lines = [f"UMAP of {', '.join(runs)}", *mixing, "", *self.regions.few_lines(_SHOWN_REGIONS), ""]
        return self._screen([*lines, *(f"  {line}" for line in trust)])

    @property
    def _mixing(self) -> list[str]:
        """Return a list with one line on how well the runs mix; an empty list for a single run."""
        e = self.evidence
        if np.isnan(e.mixing_null):
            return []
        return [
            f"  neighbors from another run {e.mixing_original:.1%}   labels shuffled {e.mixing_null:.1%}   in the "
            f"layout {e.mixing_picture:.1%}"
        ]

    @property
    def headline(self) -> str:
        """Return the main result in one line: how well the runs mix or, for one run, how faithful the layout is."""
        return next(iter(self._mixing), f"  {self.evidence.lines()[0]}")

    @property
    def sentences(self) -> str:
        e = self.evidence
        preserved = (
            f"The layout preserves {e.neighbor_preservation:.0%} of the {counted(e.k, 'nearest neighbor')} of a latent."
        )
        if np.isnan(e.mixing_null):
            return preserved
        return (
            f"{e.mixing_original:.1%} of the neighbors of a latent are from another run ({e.mixing_null:.1%} if labels "
            f"were shuffled), and {self.regions.n_of_one_run:,} of {counted(len(self.regions), 'region')} belong "
            f"mostly to one run. {preserved}"
        )

    @property
    def method(self) -> str:
        p, several = self.params, len(self.names) > 1
        across = (
            f" For each region, we used a {self.regions.test_in_words()}. Mixing is the share of neighbors from "
            "another run, compared with its distribution under permuted labels."
        )
        return (
            f"We embedded the unit decoder directions of {counted(len(self.names), 'run')} in one UMAP ({p['backend']} "
            f"{p['backend_version']}) from {p['n_neighbors']} exact nearest neighbors by cosine, the latent itself "
            f"included, with min_dist {p['min_dist']:g} and seed {p['seed']}. Regions: {self.regions.how}."
            + (across if several else "")
        )

    def details(self) -> str:
        """Return the printed summary, then parameters, latents per run, all caveats and all regions."""
        p = self.params
        about = (
            f"UMAP, exact cosine neighbors (k = {p['n_neighbors']}), min_dist {p['min_dist']}, seed {p['seed']}, "
            f"{p['backend']} {p['backend_version']}"
        )
        alive = ends([f"{d.name}: {d.alive.describe()}" for d in self.dictionaries])
        caveats = [f"caveat: {c}" for c in self.caveats]
        mixing = self.evidence.lines()[-1:] if self._mixing else ()
        return "\n".join([repr(self), about, *mixing, *alive, *caveats, *self.regions.table().splitlines()])


def umap(
    dictionaries: Any,
    n_neighbors: int = 15,
    *,
    min_dist: float = 0.1,
    seed: int = 0,
    n_epochs: int | None = None,
    backend: Backend = "auto",
    n_seeds: int = 3,
    allow_mismatch: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Embedding:
    """Compute the UMAP of one dictionary, or of several jointly, from exact cosine neighbors.

    Latents with bit-identical directions are embedded once and share a point.

    Args:
        dictionaries: one dictionary or a list, in any form that `compare` takes.
        n_neighbors: size of the neighborhood including the point itself, as in UMAP; 2…64.
        min_dist: UMAP's minimum distance between points of the layout.
        seed: random seed; layouts are reproducible with the same backend and version.
        n_epochs: optimization epochs; None lets the backend choose.
        backend: "numba": umap-learn's weights and our optimizer, on all threads; "umap-learn": umap-learn alone, on
            one thread; "cuml": needs a GPU and cuML ≥ 25.08; "auto": cuML if it can run, else numba.
        n_seeds: number of layouts computed from the same neighbors, with seeds `seed`, `seed` + 1, …, to measure
            stability; 1 skips this.
        allow_mismatch: embed dictionaries from different hook points or models together.
        executor: where neighbors are computed: a `distributed.Client`, "local:N" or a Dask scheduler's address.
        progress: called with the current stage and its completed fraction, in [0, 1].

    Raises:
        ValueError: different widths or spaces, or n_neighbors outside 2…64 or not below the number of distinct
            directions.

    Example:
        >>> import sae_geometry as sg
        >>> e = sg.umap(["demo:local-narrow-seed0"], n_epochs=20)
        >>> e.coords.shape
        (512, 2)
    """
    dicts, caveats = _inputs(dictionaries, allow_mismatch)
    if n_seeds < 1:
        raise ValueError(f"n_seeds is the number of layouts and must be at least 1; got {n_seeds}")
    if not 0 <= min_dist <= 1 or not 0 <= seed <= 2**32 - n_seeds or (n_epochs is not None and n_epochs < 1):
        raise ValueError(
            f"min_dist must be in 0…1, seed in 0…2³²−1 and n_epochs at least 1; got {min_dist}, {seed} and {n_epochs}"
        )
    engine, version, why = choose_backend(backend)
    parts = [d.directions.to(dicts[0].device) for d in dicts]
    points = torch.cat(parts)
    first = first_equal(points)
    kept, point = torch.unique(first, return_inverse=True)
    n_points = len(kept)
    if not 2 <= n_neighbors <= MAX_K or n_neighbors >= n_points:
        raise ValueError(
            f"n_neighbors must be in 2…{MAX_K} and below the number of distinct directions, {n_points:,} among "
            f"{counted(len(points), 'latent')}; got {n_neighbors}"
        )
    # The quality measures need a wider neighborhood than UMAP, if there are enough points.
    k_wide = min(max(n_neighbors, EVIDENCE_K + 1), n_points)
    search = None if progress is None else lambda share: progress("exact neighbors", share)
    with settings(executor=executor):
        near, wide, swept = neighborhoods(parts, points, kept, k_wide, search)
    drawing = None if progress is None else lambda share: progress(f"UMAP ({engine})", share)
    graph = wide.first(n_neighbors)
    placed = lay_out(
        points[kept], graph, engine,
        min_dist=min_dist, seeds=range(seed, seed + n_seeds), n_epochs=n_epochs, progress=drawing,
    )  # fmt: skip
    where = point.cpu().numpy()
    coords, *others = (np.ascontiguousarray(p[where]) for p in placed)
    owner = np.repeat(np.arange(len(dicts)), [d.n_latents for d in dicts])
    names = tuple(d.name for d in dicts)
    params = {
        "n_neighbors": n_neighbors, "metric": "cosine", "neighbors": "exact (sweep)", "min_dist": min_dist,
        "seed": seed, "n_seeds": n_seeds, "n_epochs": n_epochs,
        "backend": engine, "backend_version": version, "backend_why": why,
    }  # fmt: skip
    latent_id = np.concatenate([d.latent_ids.cpu().numpy() for d in dicts])
    return Embedding(
        coords, owner, latent_id, names, params,
        evidence=measure_evidence(points, near, coords, owner, seed=seed, others=others),
        regions=marked(find_regions(coords, owner, names), dicts, owner, latent_id),
        dictionaries=tuple(dicts), point=where, neighbors=graph, caveats=caveats, swept=swept,
    )  # fmt: skip


def _inputs(dictionaries: Any, allow_mismatch: bool) -> tuple[list[Dictionary], tuple[str, ...]]:
    """Return the dictionaries under distinct names, and the caveats about them."""
    given = several(dictionaries)
    if not given:
        raise ValueError("there is nothing to embed: give at least one dictionary")
    dicts = distinct([as_dictionary(d) for d in given])
    found = [c for a, b in combinations(dicts, 2) for c in require_same_space(a, b, allow_mismatch)]
    many = f"{len(dicts):,} runs: partners are listed only for up to {MOST_RUNS} runs; `seeds` compares every pair"
    notes = [*([many] if len(dicts) > MOST_RUNS else []), *(f"{d.name}: {note}" for d in dicts for note in d.notes)]
    return dicts, few(sorted([*notes, *found], key=lambda note: not note.endswith(ALLOWED)))
