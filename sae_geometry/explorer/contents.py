"""Contents of an explorer page as plain values, from an embedding or from a results folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from sae_geometry.embedding.embedding import Embedding
from sae_geometry.embedding.region_record import regions_record
from sae_geometry.io.column_kinds import IDS, MAYBE_TEXTS, NUMBERS, TEXTS, TRUTHS, check_columns
from sae_geometry.io.escaping import escaped, shown
from sae_geometry.io.parquet import read_table
from sae_geometry.io.results_folder import has, read_json
from sae_geometry.matching.defaults import MOST_RUNS
from sae_geometry.pairwise.label_columns import labeled_table
from sae_geometry.results.result import SCHEMA_VERSION
from sae_geometry.results.store import software
from sae_geometry.sources import neuronpedia_pages

PLACE = {"run": TEXTS, "latent_id": IDS, "x": NUMBERS, "y": NUMBERS}
PARTNER = {
    "max_cosine": NUMBERS, "partner_id": NUMBERS, "mutual": TRUTHS, "one_to_one_partner_id": NUMBERS,
    "one_to_one_cosine": NUMBERS, "q_value": NUMBERS,
}  # fmt: skip
MAYBE = {
    "frequency": NUMBERS, "region": MAYBE_TEXTS, "tokens": MAYBE_TEXTS, "explanation": MAYBE_TEXTS, "readable": TRUTHS,
}  # fmt: skip
_LAST_ID = (1 << 32) - 1  # largest latent id that a page can hold


@dataclass(frozen=True, eq=False, repr=False)
class Contents:
    """Contents of a page: the table of points, the summary and the regions.

    Attributes:
        table: one row per latent, with the columns of `Embedding.to_pandas`.
        regions: contents of `regions.json`; empty if there are no regions.
    """

    table: pd.DataFrame
    summary: Mapping[str, Any]
    regions: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Return the names of the runs, in the order of the summary."""
        return list(self.summary["points"])

    def about(self) -> dict[str, Any]:
        """Return everything on the page except the points as a JSON-ready dict: runs, regions, evidence, provenance.

        Raises:
            ValueError: the summary or the regions are not in the format that this package writes.
        """
        try:
            inputs = {str(given["name"]): given for given in self.summary.get("inputs", [])}
            runs = [_run(name, count, inputs.get(name, {})) for name, count in self.summary["points"].items()]
            params = self.summary.get("params") or {}
            kept = ("n_neighbors", "min_dist", "seed", "backend", "backend_version")
            labels = self.summary.get("labels") or {}
            return {
                "runs": runs,
                "flow": self.summary.get("kind") == "Flow",
                "labels": _texts(labels.get("sources")),
                "by_chance": _by_chance(self.summary.get("pairs") or [], self.names),
                "regions": [_region(region) for region in self.regions.get("regions", [])],
                "regions_how": _text(self.regions.get("how")) or "",
                "evidence": escaped("; ".join(map(str, self.summary["evidence_lines"]))),
                "params": {key: _text(params[key]) for key in kept if key in params},
                "caveats": _texts(self.summary.get("caveats")),
                "software": {shown(k): shown(v) for k, v in (self.summary.get("software") or {}).items()},
                **{key: _text(self.summary.get(key)) for key in ("command", "created", "reproducible_with")},
            }
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError("summary.json or regions.json is damaged; rerun sae-geometry umap or flow") from error


def contents_of(e: Embedding) -> Contents:
    """Return the contents of the page of an embedding in memory."""
    table = labeled_table(e.to_pandas(), e.dictionaries)
    return Contents(
        table, {**made_now(), **e.summary()}, regions_record(e.regions, e.dictionaries, e.owner, e.latent_id)
    )


def made_now() -> dict[str, Any]:
    """Return the fields that only a saved summary has: command, time of creation, software."""
    return {"command": None, "created": datetime.now(UTC).isoformat(timespec="seconds"), "software": software()}


def read_shown(folder: Path) -> dict[str, Any]:
    """Return the summary of a results folder, and check that the explorer can show these results.

    Raises:
        FileNotFoundError: not a results folder.
        ValueError: results of a different kind or version.
    """
    make = "make one with sae-geometry umap or flow"
    if not folder.is_dir():
        what = "is a file, not" if folder.exists() else "does not exist; explore takes"
        raise FileNotFoundError(f"{folder} {what} a folder of results; {make}")
    if not has(folder, "summary.json"):
        raise FileNotFoundError(f"{folder} is not a folder of results: it has no summary.json; {make}")
    summary = read_json(folder, "summary.json")
    kind = summary.get("kind")
    if kind not in ("Embedding", "Flow"):
        what = kind if isinstance(kind, str) and kind else "unknown"
        raise ValueError(f"{folder} holds a result of kind {shown(what)}; explore shows UMAPs and flows only; {make}")
    version = summary.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{folder} has schema version {version!r:.80}, but this version of sae-geometry reads {SCHEMA_VERSION}; "
            "rerun sae-geometry umap or flow"
        )
    return summary


def read_contents(folder: Path) -> Contents:
    """Return the contents of the page of a folder that `sae-geometry umap` wrote.

    Raises:
        ValueError: results that are incomplete, or of a different kind or version.
    """
    summary = read_shown(folder)
    if not has(folder, "umap.parquet"):
        raise FileNotFoundError(f"{folder} has no umap.parquet; rerun sae-geometry umap")
    table = read_table(folder, "umap.parquet")
    regions = read_json(folder, "regions.json") if has(folder, "regions.json") else {}
    return checked(Contents(table, summary, regions), folder)


def checked(contents: Contents, folder: Path) -> Contents:
    """Check that the table has the columns and runs that a page needs, and return the contents.

    Raises:
        ValueError: missing columns, or runs that differ from those of the summary.
    """
    points = contents.summary.get("points")
    if not isinstance(points, dict) or not points or not all(type(count) is int for count in points.values()):
        raise ValueError(f"{folder}: summary.json does not name the runs; rerun sae-geometry umap or flow")
    names = list(points)
    if len(names) > MOST_RUNS:
        raise ValueError(f"{folder}: a page shows up to {MOST_RUNS} runs; this layout has {len(names):,}")
    wanted = dict(PLACE)
    if len(names) > 1:
        wanted |= {f"{column}:{name}": kinds for name in names for column, kinds in PARTNER.items()}
    check_columns(contents.table, wanted, MAYBE, folder)
    there = contents.table["run"].value_counts().to_dict()
    if there != points:
        raise ValueError(f"{folder}: table and summary.json differ in runs or counts; rerun sae-geometry umap or flow")
    ids = contents.table["latent_id"]
    if int(ids.min()) < 0 or int(ids.max()) > _LAST_ID:
        raise ValueError(f"{folder}: the table has latent ids outside 0…{_LAST_ID:,}; rerun sae-geometry umap or flow")
    contents.about()
    return contents


def _text(value: Any) -> Any:
    """Return a string escaped, a finite number or None unchanged; raise TypeError for anything else."""
    if value is None or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return escaped(value)


def _texts(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple | None):
        raise TypeError(type(values).__name__)
    return [_text(value) for value in values or ()]


def _run(name: str, count: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    address = _text(given.get("address"))
    return {
        "name": shown(name),
        "count": int(count),
        "neuronpedia": neuronpedia_pages(given.get("metadata") or {}, address),
        "address": address,
        **{key: _text(given.get(key)) for key in ("model", "hook_point", "latents", "fingerprint")},
        "notes": _texts(given.get("notes")),
    }


def _by_chance(pairs: Sequence[Mapping[str, Any]], names: list[str]) -> list[list[float | None]]:
    """Return the null expectation of the mean nearest cosine from each run to each other; None where unrecorded."""
    found: list[list[float | None]] = [[None] * len(names) for _ in names]
    for pair in pairs:
        a, b = names.index(pair["a"]), names.index(pair["b"])
        for at, to, key in ((a, b, "mmcs_chance_a_to_b"), (b, a, "mmcs_chance_b_to_a")):
            value = pair.get(key)
            found[at][to] = None if value is None else float(value)
    return found


def _region(region: Mapping[str, Any]) -> dict[str, Any]:
    corners = [[float(x), float(y)] for x, y in region.get("outline") or []]
    x, y = (float(at) for at in region["center"])
    if not all(map(math.isfinite, [x, y, *(at for corner in corners for at in corner)])):
        raise ValueError("a region has coordinates that are not finite")
    return {
        "letter": shown(region["letter"]), "size": int(region["size"]), "verdict": _text(region.get("verdict")),
        "center": [x, y], "outline": corners, "tokens": _texts([mark["token"] for mark in region.get("tokens") or []]),
    }  # fmt: skip
