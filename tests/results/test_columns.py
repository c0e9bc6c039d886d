"""Tests that every column of every saved table has a unit and a meaning, in the docs and in the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from every_result import results

import sae_geometry as sg
from sae_geometry.results.columns import LABELS, TABLES
from sae_geometry.results.store import to_json

_NAMES = {"K": r"\d+", "T": r"\d+", "L": r"\d+", "RUN": "(?:one|two|three)", "NAME": ".+"}
_OF_A_PARTNER = "(?:partner_|nearest_|next_|(?:one|two|three|latent_[0-9]+):)?"


def fits(name: str, keys: list[str]) -> str | None:
    """Return the documented column pattern that a column's name matches."""
    for key in keys:
        parts = re.split(r"(?<![A-Za-z])(K|T|L|RUN|NAME)(?![A-Za-z])", key)
        if re.fullmatch("".join(_NAMES.get(p, re.escape(p)) for p in parts), name):
            return key
    return None


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Return the folder of every result, by its name."""
    here = tmp_path_factory.mktemp("saved")
    return {name: sg.save(result, here / name, figures={}) for name, (_, result) in results().items()}


@pytest.fixture(scope="module")
def saved(folders) -> dict[tuple[str, str], set[str]]:
    """Return the columns of every table of every result, by command and file."""
    found: dict[tuple[str, str], set[str]] = {}
    for name, (command, _) in results().items():
        for path in sorted(folders[name].iterdir()):
            if path.suffix in (".csv", ".parquet"):
                table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
                found.setdefault((command, path.name), set()).update(map(str, table.columns))
    return found


def test_every_result_is_read_back(folders):
    for name, (_, result) in results().items():
        tables, summary = sg.read(folders[name])
        made = result.tables()
        assert {key: len(table) for key, table in tables.items()} == {key: len(table) for key, table in made.items()}
        assert all({*map(str, made[key].columns)} <= set(table.columns) for key, table in tables.items())
        assert json.loads(to_json(result.summary())).items() <= summary.items()


def test_every_column_of_every_saved_table_has_a_meaning(saved):
    tables = {(command, table.file): table for table in TABLES for command in table.commands}
    assert set(saved) == {key for key in tables if key[0] != "explorer"}
    for key, columns in saved.items():
        own = list(tables[key].columns)
        for column in columns:
            bare = re.sub(f"^{_OF_A_PARTNER}", "", column)
            assert fits(column, own) or fits(column, list(LABELS)) or fits(bare, list(LABELS)), (key, column)


def test_every_meaning_is_of_a_column_that_is_saved(saved):
    for table in TABLES:
        there = [name for command in table.commands for name in saved.get((command, table.file), ())]
        for key in table.columns if there else ():
            assert any(fits(name, [key]) for name in there), (table.file, key)
    every = {re.sub(f"^{_OF_A_PARTNER}", "", name) for names in saved.values() for name in names}
    for key in LABELS:
        assert any(fits(name, [key]) for name in every), key


def test_units_and_meanings_are_there_and_short():
    for table in TABLES:
        for name, (unit, meaning) in table.columns.items():
            assert unit, (table.file, name)
            assert 10 < len(meaning) < 120, (table.file, name)
            assert "|" not in unit + meaning


def test_a_table_in_memory_has_the_columns_of_the_file(tmp_path):
    for name in ("compare", "within"):
        result = results()[name][1]
        folder = sg.save(result, tmp_path / name, figures={})
        assert list(result.to_pandas().columns) == list(pd.read_parquet(folder / "matches.parquet").columns)
        assert "tokens" in result.to_pandas().columns
    c = results()["compare"][1]
    for list_name, frame in (("shared", c.shared), ("only-a", c.only_a), ("only-b", c.only_b)):
        assert list(frame.columns) == list(pd.read_csv(tmp_path / "compare" / f"{list_name}.csv").columns)
        assert frame["label"].str.contains("about a word").all()
