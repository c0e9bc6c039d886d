"""Contents of a page as plain values, from an embedding or from a results folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_geometry.embedding.embedding import Embedding
from sae_geometry.embedding.quality import Evidence
from sae_geometry.io.atomic_folder import recover
from sae_geometry.io.parquet import read_table
from sae_geometry.matching.defaults import MOST_RUNS
from sae_geometry.results.store import SCHEMA_VERSION, regions_record, software
from sae_geometry.sources import neuronpedia_pages

if TYPE_CHECKING:
    import pandas as pd

PLACE = ("run", "latent_id", "x", "y")
PARTNER = ("max_cosine", "partner_id", "mutual", "one_to_one_partner_id", "one_to_one_cosine")


@dataclass(frozen=True, eq=False, repr=False)
class Contents:
    """An embedding with its table, summary and regions.

    Attributes:
        table: one row per latent, with the columns of `Embedding.to_pandas`.
        summary: contents of `summary.json`.
        regions: contents of `regions.json`; empty where there are none.
    """

    table: pd.DataFrame
    summary: Mapping[str, Any]
    regions: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Return the names of the runs, in the order of the summary."""
        return list(self.summary["points"])

    def about(self) -> dict[str, Any]:
        """Return everything on the page except the points: runs, regions, evidence, provenance. JSON-ready."""
        inputs = {str(given.get("name")): given for given in self.summary.get("inputs", [])}
        points = self.summary["points"]
        keys = ("address", "model", "hook_point", "latents", "fingerprint", "notes")
        runs = []
        for name in self.names:
            given = inputs.get(name, {})
            runs.append(
                {
                    "name": name,
                    "count": int(points[name]),
                    "neuronpedia": neuronpedia_pages(given.get("metadata") or {}, given.get("address")),
                    **{key: given.get(key) for key in keys},
                }
            )
        regions = [
            {key: region.get(key) for key in ("letter", "size", "verdict", "center", "outline")}
            for region in self.regions.get("regions", [])
        ]
        shown = ("command", "created", "software", "params", "caveats", "reproducible_with")
        return {
            "runs": runs,
            "regions": regions,
            "regions_how": self.regions.get("how", ""),
            "evidence": evidence_line(self.summary),
            **{key: self.summary.get(key) for key in shown},
        }


def contents_of(e: Embedding) -> Contents:
    """Return the contents of an embedding in memory."""
    made = {"command": None, "created": datetime.now(UTC).isoformat(timespec="seconds"), "software": software()}
    return Contents(e.to_pandas(), {**made, **e.summary()}, regions_record(e))


def read_contents(folder: Path) -> Contents:
    """Read the contents of a folder that `sae-geometry umap` wrote.

    Raises:
        FileNotFoundError: not a results folder.
        ValueError: results of another kind or version, or incomplete ones.
    """
    make = "make one with sae-geometry umap"
    if not folder.is_dir():
        what = "is a file, not" if folder.exists() else "does not exist; explore takes"
        raise FileNotFoundError(f"{folder} {what} a folder of results; {make}")
    recover(folder)
    summary = _json(folder / "summary.json", f"{folder} is not a folder of results: it has no summary.json; {make}")
    kind = summary.get("kind")
    if kind != "Embedding":
        raise ValueError(f"{folder} holds a {kind or 'result of unknown kind'}, and explore shows UMAPs; {make}")
    version = summary.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{folder} has schema version {version!r}, and this version of sae-geometry reads {SCHEMA_VERSION}; "
            "make the results anew with sae-geometry umap"
        )
    table_path = folder / "umap.parquet"
    if not table_path.is_file():
        raise FileNotFoundError(f"{folder} has no umap.parquet; make the results anew with sae-geometry umap")
    try:
        table = read_table(table_path)
    except (OSError, ValueError) as error:  # pyarrow raises subclasses of ValueError
        raise ValueError(f"{table_path} cannot be read as parquet; make the results anew") from error
    regions_path = folder / "regions.json"
    regions = _json(regions_path, "") if regions_path.exists() else {}
    return checked(Contents(table, summary, regions), folder)


def checked(contents: Contents, folder: Path) -> Contents:
    """Check that the table has what a page needs, and return the contents.

    Raises:
        ValueError: missing columns, or runs that differ from those of the summary.
    """
    points = contents.summary.get("points")
    if not isinstance(points, dict) or not points:
        raise ValueError(f"{folder}: summary.json does not say which runs were embedded; make the results anew")
    names = list(points)
    if len(names) > MOST_RUNS:
        raise ValueError(f"{folder}: a page is made of up to {MOST_RUNS} runs; this picture is of {len(names):,}")
    wanted = [*PLACE]
    if len(names) > 1:
        wanted += [f"{column}:{name}" for name in names for column in PARTNER]
    missing = [column for column in wanted if column not in contents.table.columns]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{folder}: umap.parquet lacks the columns {', '.join(missing[:3])}{more}; an older version wrote it: "
            "make the results anew with sae-geometry umap"
        )
    there = contents.table["run"].value_counts().to_dict()
    if there != points:
        raise ValueError(
            f"{folder}: umap.parquet and summary.json name different runs or counts; make the results anew"
        )
    return contents


def evidence_line(summary: Mapping[str, Any]) -> str:
    """Return the evidence line of a summary, built from its numbers where the summary has none."""
    said = summary.get("evidence_lines")
    if isinstance(said, list) and said:
        return "; ".join(map(str, said))
    record = summary.get("evidence") or {}
    values: dict[str, Any] = {k: math.nan if v is None else v for k, v in record.items()}
    try:
        return Evidence(**values).line()
    except (TypeError, ValueError, AttributeError):  # numbers of another version
        return ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in record.items() if isinstance(v, int | float))


def _json(path: Path, otherwise: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(otherwise)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON; make the results anew") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not hold a JSON object; make the results anew")
    return found
