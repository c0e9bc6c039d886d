"""Read labels from a user's file: CSV, Parquet or JSON lines, with a column `latent` and any other columns."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from sae_geometry.io.escaping import readable, shown
from sae_geometry.io.labels import Labels
from sae_geometry.io.parquet_bounds import check_parquet
from sae_geometry.labels.neuronpedia import read_export, read_folder
from sae_geometry.sources.neuronpedia import fetch_export
from sae_geometry.sources.plain import parse_json

_ID_COLUMNS = ("latent", "latent_id")
_LISTS = {"tokens", "negative_tokens", "logits", "negative_logits"}
_MOST_BYTES = 1 << 30
_MOST_COLUMNS = 1000
_ALWAYS, _TIMES = 64 << 20, 20  # allowed bytes in memory: _ALWAYS + _TIMES × file size


def read_labels(path: str | Path, source: str | None = None) -> Labels:
    """Read labels from a file, from a downloaded export of Neuronpedia, or from Neuronpedia itself.

    Text is never interpreted as markup or as a formula, and it is escaped when it is shown.

    Args:
        path: a `.csv`, `.parquet`, `.jsonl` or `.ndjson` file with a column `latent`; a folder with a
            Neuronpedia export; or "neuronpedia:MODEL/SOURCE", as in the URL of a latent's page, whose export is
            downloaded once.
        source: "MODEL/SOURCE"; required if the folder holds several exports.

    Returns:
        Labels: `.frame` is indexed by original latent id, and `.sources` gives the source of each column.

    Raises:
        ValueError: the file has another extension or no column `latent`, is damaged, or its ids are not distinct
            integers.
        FileNotFoundError: the file does not exist.

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
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes, above the limit of {_MOST_BYTES:,}")
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file.name} is not a label file: give a .csv, .parquet or .jsonl file")
    try:
        with file.open("rb") as f:
            frame = reader(f)
    except Exception as error:  # PyArrow and pandas may raise any exception for a damaged or malicious file.
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{file.name} cannot be read as {file.suffix[1:]}: {why}") from error
    column = next((c for c in _ID_COLUMNS if c in frame.columns), None)
    if column is None:
        have = ", ".join(shown(c, 40) for c in frame.columns[:6])
        raise ValueError(f"{file.name} has no column `latent` with latent ids; its columns are {have or 'none'}")
    ids = frame[column].map(_number).astype("float64")
    wrong = np.flatnonzero(~((ids == ids.round()) & (ids.abs() <= 2**53)))
    if len(wrong):
        value = shown(frame[column].iloc[wrong[0]], 40)
        raise ValueError(f"{file.name}, row {int(wrong[0]) + 1}: {value!r} is not a latent id")
    for name in _LISTS & set(frame.columns):
        frame[name] = frame[name].map(_list, na_action="ignore")
    try:
        return Labels.of(frame.drop(columns=column).set_axis(ids.astype("int64"), axis=0), file.name)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None


def _list(value: object) -> object:
    """Parse a string that is a JSON list, as in the tables that `save` writes; return other values unchanged."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError):
            return parse_json(value)
    return value


def _number(value: object) -> float:
    """Convert a number, or a string such as "7" or "7.0", to a float; return NaN for anything else."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            return float("nan")
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _read_csv(file: IO[bytes]) -> pd.DataFrame:
    n_columns = len(pd.read_csv(file, nrows=0, index_col=False).columns)
    file.seek(0)
    n_rows = sum(max(part.count(b"\n"), part.count(b"\r")) for part in iter(lambda: file.read(1 << 20), b"")) + 1
    _check_cells(n_rows, n_columns, file)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(file, index_col=False)
    except pd.errors.ParserWarning:
        raise ValueError("a row has more fields than the header: put text that contains a comma in quotes") from None


def _read_parquet(file: IO[bytes]) -> pd.DataFrame:
    check_parquet(file)
    frame = pd.read_parquet(file)
    return frame.reset_index() if frame.index.name in _ID_COLUMNS else frame


def _read_json_lines(file: IO[bytes]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {}
    n = 0
    for line in file:
        if line.strip():
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError(f'line {n + 1} is not a JSON object, such as {{"latent": 0, "name": "…"}}')
            for key, value in row.items():
                column = columns.setdefault(readable(key), [])
                column += [None] * (n - len(column)) + [_storable(value)]
            n += 1
            _check_cells(n, len(columns), file)
    return pd.DataFrame({key: column + [None] * (n - len(column)) for key, column in columns.items()})


def _storable(value: Any) -> Any:
    """Escape lone surrogates in the strings of a JSON value, because a table cannot store them."""
    if isinstance(value, str):
        return readable(value)
    return [_storable(v) for v in value] if isinstance(value, list) else value


_READERS: dict[str, Callable[[IO[bytes]], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


def _check_cells(n_rows: int, n_columns: int, file: IO[bytes]) -> None:
    """Raise ValueError if a table has too many columns, or would take far more memory than its file."""
    size = os.fstat(file.fileno()).st_size
    if n_columns > _MOST_COLUMNS or 8 * n_rows * n_columns > _ALWAYS + _TIMES * size:
        raise ValueError(f"{n_rows:,} rows of {n_columns:,} columns are too many for a file of {size:,} bytes")
