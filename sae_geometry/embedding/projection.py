"""Projection of new runs into a fixed embedding, from the exact nearest embedded latents."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sae_geometry.dictionary import Dictionary
from sae_geometry.embedding.embedding import Embedding
from sae_geometry.embedding.optimizer import curve_of, place
from sae_geometry.embedding.quality import EVIDENCE_K, shared_share
from sae_geometry.io.column_kinds import FLOATS, IDS, MAYBE_TEXTS, NUMBERS, TEXTS, TRUTHS, check_columns
from sae_geometry.io.escaping import shown
from sae_geometry.io.formatting import counted, ends
from sae_geometry.io.frozen import freeze
from sae_geometry.io.parquet import read_table, write_neuronpedia
from sae_geometry.io.progress import Progress
from sae_geometry.io.results_folder import has, read_json
from sae_geometry.kernels.duplicates import first_equal
from sae_geometry.kernels.sweep import listing_sweep
from sae_geometry.pairwise.inputs import activity, describe_input, distinct, several
from sae_geometry.pairwise.same_space import require_same_space
from sae_geometry.results.answer import Answer
from sae_geometry.sources import as_dictionary, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A saved table must have the _NEEDED columns; the rows of new latents also fill the columns in _EXTENDED.
_NEEDED = {"run": TEXTS, "latent_id": IDS, "x": FLOATS, "y": FLOATS}
_EXTENDED = {
    "partner_run": MAYBE_TEXTS, "max_cosine": FLOATS, "partner_id": NUMBERS, "frequency": FLOATS, "alive": TRUTHS,
}  # fmt: skip
_NULLABLE = {"i": "Int64", "u": "UInt64", "b": "boolean"}
_FAR = 1_000_000  # largest plausible coordinate; UMAP's coordinates are in the tens
_ROUNDING = 1e-6  # tolerance per component of a unit row


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """Fixed embedding that new runs are projected onto.

    Attributes:
        table: contents of its `umap.parquet`, one row per latent.
        references: the embedded dictionaries, in the order of the table.
        n_neighbors, min_dist: parameters of the embedding.
        preserved: neighbor preservation of the embedding at k = 15.
        where: folder of the embedding, or "memory".
    """

    table: pd.DataFrame
    references: tuple[Dictionary, ...]
    n_neighbors: int
    min_dist: float
    preserved: float
    where: str


@dataclass(frozen=True, eq=False, repr=False)
class Projection(Answer):
    """New runs projected into a fixed embedding.

    Attributes:
        coords: float32 [M, 2], grouped by run. A latent whose direction is in the embedding, up to rounding (1e-6 per
            component), shares its point.
        owner: int64 [M], index into `names`.
        latent_id: int64 [M], original ids.
        names: names of the new runs.
        nearest: int64 [M], row of the nearest latent in the embedding's table.
        cosine: float64 [M], cosine to the nearest latent.
        n_same: number of new latents whose direction is in the embedding.
        k: neighborhood size of `preservation`.
        preservation: mean share of a new latent's k nearest embedded latents that are among its k nearest in the
            layout.
        onto: the fixed embedding.
        dictionaries: the new dictionaries.
        params: parameters of the projection.
        caveats: warnings to show with the result.
    """

    coords: np.ndarray
    owner: np.ndarray
    latent_id: np.ndarray
    names: tuple[str, ...]
    nearest: np.ndarray
    cosine: np.ndarray
    n_same: int
    k: int
    preservation: float
    onto: Picture
    dictionaries: tuple[Dictionary, ...]
    params: Mapping[str, Any]
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        freeze(self)

    def to_pandas(self) -> pd.DataFrame:
        """Return the embedding's table with the new latents appended, marked by the column `projected`.

        In new rows, partner_run, partner_id and max_cosine refer to the nearest latent in the embedding; the other
        partner columns are null.
        """
        old = self.onto.table.assign(projected=False)
        new: dict[str, Any] = {
            "run": np.array(self.names, dtype=object)[self.owner],
            "latent_id": self.latent_id,
            "x": self.coords[:, 0],
            "y": self.coords[:, 1],
            "partner_run": self.onto.table["run"].to_numpy(dtype=object)[self.nearest],
            "max_cosine": self.cosine,
            "partner_id": self.onto.table["latent_id"].to_numpy()[self.nearest],
        }
        fires = pd.concat([pd.DataFrame(activity(d)) for d in self.dictionaries], ignore_index=True)
        frame = pd.DataFrame(new).assign(frequency=fires["frequency"], alive=fires["alive"], projected=True)
        columns = list(dict.fromkeys([*(c for c in old.columns if c != "projected"), *frame.columns]))
        old = old.reindex(columns=columns)
        # A column that one table lacks is filled with nulls and so needs a nullable type.
        kinds: dict[str, Any] = {c: (frame if c in frame and old[c].isna().all() else old)[c].dtype for c in columns}
        kinds = {c: _NULLABLE.get(kind.kind, kind) for c, kind in kinds.items()}
        new_rows = frame.reindex(columns=columns).astype(kinds)
        return pd.concat([old.astype(kinds), new_rows], ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Return runs, placement and quality as a JSON-ready dict."""
        return {
            "inputs": [describe_input(d) for d in self.dictionaries],
            "onto": {"picture": self.onto.where, "inputs": [describe_input(d) for d in self.onto.references]},
            "points": {n: int(c) for n, c in zip(self.names, self._counts(), strict=True)},
            "params": dict(self.params),
            "evidence": {
                "k": self.k,
                "neighbor_preservation": self.preservation,
                "neighbor_preservation_of_the_picture": self.onto.preserved,
                "same_direction": self.n_same,
                "mean_max_cosine": float(self.cosine.mean()),
            },
            "evidence_lines": [self.line()],
            "caveats": list(self.caveats),
        }

    @property
    def method(self) -> str:
        references = ", ".join(d.name for d in self.onto.references)
        refined = (
            ", and is moved by UMAP's optimizer while the embedding stays fixed" if self.params["n_epochs"] else ""
        )
        return (
            f"We placed the unit decoder directions of {', '.join(self.names)} into a fixed UMAP of {references} "
            f"({self.onto.n_neighbors} neighbors, min_dist {self.onto.min_dist:g}). Each direction starts at the "
            f"weighted mean of the exact nearest embedded directions by cosine{refined}."
        )

    def line(self) -> str:
        """Return the measures of quality in one line of text."""
        return "; ".join(self._quality)

    @property
    def _quality(self) -> tuple[str, str]:
        own = f"{self.onto.preserved:.0%} for the embedded latents themselves"
        same = f"{counted(self.n_same, 'latent')} with the direction and point of an embedded latent"
        return (
            f"neighbors preserved: {self.preservation:.0%} at k = {self.k} ({own})",
            f"mean cosine to the nearest embedded latent: {self.cosine.mean():.2f}; {same}",
        )

    @property
    def sentences(self) -> str:
        return (
            f"Of the {counted(self.k, 'embedded latent')} nearest to a projected latent, {self.preservation:.0%} are "
            f"also nearest in the layout ({self.onto.preserved:.0%} for the embedded latents themselves). The mean "
            f"cosine to the nearest embedded latent is {self.cosine.mean():.2f}."
        )

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return the table that `save` writes, by name: umap, one row per latent."""
        return {"umap": self.to_pandas()}

    def figures(self) -> Mapping[str, Figure]:
        """Return the figure that `save` writes, by name: the new runs over the gray embedding."""
        from sae_geometry import plots

        return {"projection": plots.projection_figure(self)}

    def write_extra(self, folder: Path) -> None:
        """Write `neuronpedia.csv` with all points."""
        write_neuronpedia(self.to_pandas(), folder / "neuronpedia.csv")

    def _counts(self) -> np.ndarray:
        return np.bincount(self.owner, minlength=len(self.names))

    def _lines(self) -> list[str]:
        counts = zip(self.names, self._counts(), strict=True)
        runs = ", ".join(ends([f"{shown(n, 30)} ({c:,})" for n, c in counts], 6))
        made_of = ", ".join(ends([shown(d.name, 30) for d in self.onto.references], 6))
        where = f"onto the UMAP of {made_of} ({counted(len(self.onto.table), 'latent')}, {shown(self.onto.where, 100)})"
        said = (self._quality[0], where, self._quality[1])
        return [f"Projection of {counted(len(self.owner), 'latent')}: {runs}", *(f"  {text}" for text in said)]


def project(
    dictionaries: Any,
    onto: Embedding | str | os.PathLike[str],
    *,
    seed: int = 0,
    refine: bool = True,
    offline: bool = False,
    allow_mismatch: bool = False,
    progress: Progress | None = None,
) -> Projection:
    """Project new runs into an existing UMAP, which stays fixed.

    Every new latent starts at the mean of its exact nearest neighbors among the embedded latents, weighted as in UMAP,
    and is moved by UMAP's optimizer while the embedding stays fixed. New latents do not interact.

    Args:
        dictionaries: one dictionary or a list, in any form that `compare` takes.
        onto: an `Embedding`, or the folder of a saved embedding (or its `umap.parquet`), whose dictionaries are then
            loaded from the addresses in the summary and checked against their fingerprints.
        seed: random seed of the optimizer.
        refine: run the optimizer; False leaves each new latent at the weighted mean.
        offline: load the embedding's dictionaries without network access.
        allow_mismatch: project dictionaries from another hook point or model.
        progress: called with the current stage and its completed fraction, in [0, 1].

    Raises:
        ValueError: the embedding's dictionaries are unavailable or have changed, or widths or spaces differ.
        FileNotFoundError: there is no saved embedding at `onto`.

    Example:
        >>> import sae_geometry as sg
        >>> e = sg.umap("demo:local-narrow-seed0", n_epochs=20, n_seeds=1)
        >>> p = sg.project("demo:local-narrow-seed0", e)
        >>> p.n_same, bool((p.coords == e.coords).all())
        (512, True)
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in 0…2³²−1; got {seed}")
    picture = _picture(onto, offline)
    new, caveats = _inputs(dictionaries, picture.references, allow_mismatch)
    device = picture.references[0].device
    old_points = torch.cat([d.directions.to(device) for d in picture.references])
    new_points = torch.cat([d.directions.to(device) for d in new])
    n = len(old_points)
    # Equal directions have the same neighbors and point, so each distinct direction is searched once.
    first = first_equal(torch.cat([old_points, new_points]))
    kept = torch.unique(first[:n])
    asked, back = torch.unique(first[n:], return_inverse=True)
    k = min(max(picture.n_neighbors, EVIDENCE_K + 1), len(kept))
    search = None if progress is None else lambda share: progress("exact neighbors", share)
    every = torch.cat([old_points, new_points])[asked]
    best = listing_sweep(every, old_points[kept], k, columns=False, progress=search).rows
    index, cosine = best.index.cpu().numpy(), best.cosine.cpu().numpy().clip(-1.0, 1.0)
    coords = picture.table[["x", "y"]].to_numpy(dtype=np.float32)
    there = coords[kept.cpu().numpy()]
    asked_rows = asked.cpu().numpy()
    # Rescaling, or a round trip through lower precision, changes a direction only by rounding.
    apart = (every - old_points[kept][best.index[:, 0]]).abs().amax(dim=1).cpu().numpy()
    own = np.where(asked_rows < n, asked_rows, kept.cpu().numpy()[index[:, 0]])
    same = (asked_rows < n) | (apart <= _ROUNDING)
    placed = np.empty((len(asked_rows), 2), dtype=np.float32)
    placed[same] = coords[own[same]]
    width = min(picture.n_neighbors, k)
    epochs = (100 if len(asked_rows) <= 10_000 else 30) if refine else 0  # the defaults of umap-learn's `transform`
    distance = np.maximum(1 - cosine[~same, :width], 0).astype(np.float32)
    placed[~same] = place(
        index[~same, :width], distance, there, curve_of(picture.min_dist), n_epochs=epochs, seed=seed,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    where = back.cpu().numpy()
    k_kept = max(1, min(EVIDENCE_K, k - 1))
    params = {
        "n_neighbors": width, "metric": "cosine", "neighbors": "exact (sweep)",
        "seed": seed, "n_epochs": epochs, "min_dist": picture.min_dist,
    }  # fmt: skip
    return Projection(
        np.ascontiguousarray(placed[where]),
        owner=np.repeat(np.arange(len(new)), [d.n_latents for d in new]),
        latent_id=np.concatenate([d.latent_ids.cpu().numpy() for d in new]),
        names=tuple(d.name for d in new), nearest=kept.cpu().numpy()[index[where, 0]], cosine=cosine[where, 0],
        n_same=int(same[where].sum()), k=k_kept,
        preservation=_preservation(index, there, placed, same, k_kept)[where].mean().item(),
        onto=picture, dictionaries=new, params=params, caveats=caveats,
    )  # fmt: skip


def _inputs(
    dictionaries: Any, references: Sequence[Dictionary], allow_mismatch: bool
) -> tuple[tuple[Dictionary, ...], tuple[str, ...]]:
    """Return the new dictionaries, under names that no reference has, and their caveats."""
    given = several(dictionaries)
    if not given:
        raise ValueError("there is nothing to project: give at least one dictionary")
    new = tuple(distinct([*references, *(as_dictionary(d) for d in given)])[len(references) :])
    found = [c for d, r in product(new, references) for c in require_same_space(r, d, allow_mismatch)]
    return new, tuple(dict.fromkeys([*(f"{d.name}: {note}" for d in new for note in d.notes), *found]))


def _preservation(nearest: np.ndarray, there: np.ndarray, placed: np.ndarray, same: np.ndarray, k: int) -> np.ndarray:
    """Return the share of each projected point's k nearest latents that are also nearest in the layout, [m].

    As in the evidence of the embedding, a latent that is already embedded is not its own neighbor.
    """
    from scipy.spatial import cKDTree

    most = min(k + 1, len(there))
    seen = cKDTree(there).query(placed, k=most)[1].reshape(len(placed), most)
    out = np.empty(len(placed))
    for at, is_there in enumerate(same):
        own = nearest[at, 0] if is_there else -1
        pair = (row[row != own][:k] for row in (nearest[at], seen[at]))
        left, right = pair
        out[at] = shared_share(left[None, : len(right)], right[None, : len(left)])
    return out


def _picture(onto: Embedding | str | os.PathLike[str], offline: bool) -> Picture:
    if isinstance(onto, Embedding):
        p, kept = onto.params, onto.evidence.neighbor_preservation
        return Picture(onto.to_pandas(), onto.dictionaries, p["n_neighbors"], p["min_dist"], kept, "memory")
    folder = Path(onto)
    folder = folder.parent if folder.name == "umap.parquet" else folder
    if not has(folder, "summary.json") or not has(folder, "umap.parquet"):
        raise FileNotFoundError(f"{folder} is not a saved embedding: it needs umap.parquet and summary.json")
    record = read_json(folder, "summary.json")
    if record.get("kind") != "Embedding":
        raise ValueError(
            f"{folder} holds a result of kind {record.get('kind')}, not Embedding: make one with sae-geometry umap"
        )
    frame = read_table(folder, "umap.parquet")
    check_columns(frame, _NEEDED, _EXTENDED, folder)
    try:
        inputs = [_input(entry) for entry in record["inputs"]]
        p = record["params"]
        n_neighbors, min_dist = int(p["n_neighbors"]), float(p["min_dist"])
        kept = float(record["evidence"]["neighbor_preservation"])
        if not inputs or n_neighbors < 2 or not 0 <= min_dist <= 1 or not 0 <= kept <= 1:
            raise ValueError
        points = frame[["latent_id", "x", "y"]].to_numpy(np.float64)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{folder} has an incomplete or invalid embedding; rerun sae-geometry umap") from error
    references = tuple(_reloaded(*entry, folder, offline) for entry in inputs)
    ids = np.concatenate([d.latent_ids.cpu().numpy() for d in references])
    runs = [d.name for d in references for _ in range(d.n_latents)]
    if not (np.abs(points[:, 1:]) <= _FAR).all():
        raise ValueError(f"{folder}: umap.parquet has coordinates missing or beyond ±{_FAR:,}; rerun sae-geometry umap")
    if not np.array_equal(points[:, 0], ids) or frame["run"].tolist() != runs:
        raise ValueError(f"{folder}: umap.parquet and summary.json do not belong together: their latents differ")
    frame = frame.assign(run=runs, latent_id=ids)
    if "partner_run" in frame:
        frame = frame.astype({"partner_run": object})  # A categorical column cannot take new names.
    return Picture(frame, references, n_neighbors, min_dist, kept, str(folder))


def _input(entry: Mapping[str, Any]) -> tuple[str | None, str, dict[str, Any]]:
    """Return the address, fingerprint and loading options of a saved embedding's dictionary."""
    alive, address = entry["alive"], entry["address"]
    latents = "alive" if alive["n_dropped_dead"] else "all"
    how = {"name": str(entry["name"]), "latents": latents, "drop_bad": bool(alive["bad_ids"])}
    return None if address is None else str(address), str(entry["fingerprint"]), how


def _reloaded(address: str | None, fingerprint: str, how: dict[str, Any], folder: Path, offline: bool) -> Dictionary:
    """Return a dictionary of a saved embedding, reloaded and checked against its fingerprint."""
    if address is None:
        raise ValueError(
            f"{folder}: {how['name']!r} was made in memory and has no address to load it from; "
            "project onto the Embedding itself, from Python"
        )
    d = load(address, **how, offline=offline)
    if d.fingerprint != fingerprint:
        raise ValueError(
            f"{shown(address)} has changed since {folder} was made: its fingerprint was {shown(fingerprint, 16)}… and "
            f"is now {d.fingerprint[:16]}…; rerun sae-geometry umap"
        )
    return d
