"""Labels from a file of the user: CSV, Parquet or JSON lines with a column `latent` and any others."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from sae_geometry.io.labels import Labels
from sae_geometry.labels.neuronpedia import read_export, read_folder
from sae_geometry.sources.neuronpedia_export import fetch_export

_ID_COLUMNS = ("latent", "latent_id")
_MOST_BYTES = 1 << 30


def read_labels(path: str | Path, source: str | None = None) -> Labels:
    """Read labels from a file, from a downloaded export of Neuronpedia, or from Neuronpedia.

    Text is taken as it is, never as markup or a formula; it is escaped where it is shown.

    Args:
        path: a `.csv`, `.parquet`, `.jsonl` or `.ndjson` file with a column `latent`; a folder with the export of one
            source, features and explanations; or "neuronpedia:MODEL/SOURCE", as in the address of a page there, which
            is fetched from its public exports once.
        source: "MODEL/SOURCE", where a folder holds several exports.

    Returns:
        Labels: `.frame`, indexed by original latent id, and where each column comes from.

    Raises:
        ValueError: a different ending, no column `latent`, ids that are not whole numbers or repeat, or a damaged file.
        FileNotFoundError: no such file.

    Example:
        >>> import pathlib, tempfile, sae_geometry as sg
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "mine.csv"
        >>> _ = file.write_text("latent,name\\n7,because\\n")
        >>> sg.read_labels(file).frame.name[7]
        'because'
    """
    if isinstance(path, str) and path.startswith("neuronpedia:"):
        source = path.partition(":")[2]
        return read_export(fetch_export(source), source).labels
    if source is not None:
        return read_export(Path(path), source).labels
    file = Path(path)
    if file.is_dir():
        return read_folder(file).labels
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: expected a CSV, Parquet or JSON lines file of labels")
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes, more than labels need")
    try:
        with file.open("rb") as f:
            match file.suffix.lower():
                case ".csv":
                    frame = pd.read_csv(f, dtype=None, keep_default_na=True)
                case ".parquet":
                    frame = pd.read_parquet(f)
                case ".jsonl" | ".ndjson":
                    frame = pd.DataFrame([json.loads(line) for line in f if line.strip()])
                case _:
                    raise ValueError(f"{file.name} ends in none of .csv, .parquet, .jsonl: labels are one of these")
    except (OSError, ValueError, RecursionError) as error:
        if "labels are one of these" in str(error):
            raise
        raise ValueError(
            f"{file.name} cannot be read as {file.suffix[1:]}: {str(error).splitlines()[0][:120]}"
        ) from error
    column = next((c for c in _ID_COLUMNS if c in frame.columns), None)
    if column is None:
        have = ", ".join(str(c) for c in frame.columns[:6])
        raise ValueError(f"{file.name} needs a column `latent` with the ids of the latents; it has {have or 'none'}")
    ids = pd.to_numeric(frame[column], errors="coerce")
    wrong = frame.index[ids.isna() | (ids != ids.round()) | (ids.abs() > 2**53)]
    if len(wrong):
        value = str(frame[column].loc[wrong[0]])[:40]
        raise ValueError(f"{file.name}, row {int(wrong[0]) + 1}: {value!r} is not a latent id")
    return Labels.of(frame.drop(columns=column).set_axis(ids.astype("int64"), axis=0), file.name)
